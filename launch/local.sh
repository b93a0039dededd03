#!/bin/sh
# Runs a run file on this machine; the ranks are started by the command itself.
#
#   launch/local.sh launch/digits.toml --set run.ranks=4
exec consensus run "$@"
