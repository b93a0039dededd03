#!/bin/sh
# Runs a run file on this machine, or on those of a hostfile; the ranks are started by the command itself.
#
#   launch/local.sh launch/digits.toml --set run.ranks=4
#   launch/local.sh launch/digits.toml --hostfile launch/hostfile.example
#
# With checkpoints, a run that was interrupted or crashed goes on:
#
#   launch/local.sh launch/digits.toml --set 'checkpoint.every="60 s"'
#   launch/local.sh launch/digits.toml --set 'checkpoint.every="60 s"' --resume latest
exec consensus run "$@"
