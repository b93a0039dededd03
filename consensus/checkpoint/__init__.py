"""The state of a run on disk: files that are whole, and sets of them that belong together.

Every rank writes its own file (:mod:`consensus.checkpoint.file`) when its own clock or round says so
(:mod:`consensus.checkpoint.due`), under a number that all ranks use alike. The files of one number and one start of the run
are a *set* (:mod:`consensus.checkpoint.folder`). :class:`consensus.checkpoint.store.Store` is how a rank writes and reads them;
:mod:`consensus.checkpoint.state` takes and puts back what training needs.

Ranks do not meet: nobody waits for a checkpoint, so nobody can say that "now" a set is complete. The following holds instead.

- **A file that can be seen is whole.** It is written under another name, synchronised, renamed, and the folder synchronised.
  A file that was damaged afterwards is found by its checksums: the header's whenever it is looked at, the rest when it is read.
- **A set is complete once the file of every rank is there.** Whoever finds that, usually the rank that wrote last, updates the
  manifest and drops older sets. The files are the truth. The manifest is a summary for people and tools, and evidence that a
  set was complete once, so that a file that vanished can be told from one that was never written.
- **Whatever is older than a complete set is settled.** A rank's numbers rise, so all ranks are past the number of a complete
  set, and what is incomplete below it stays so. Hence dropping it races with nobody who still writes there.
- **Two ranks that update the manifest at once** rename over each other; each looks again after its rename and writes anew if
  the folder says something else by then. The last to rename therefore leaves what the folder says.
- **Two ranks that drop at once** remove the same files, or the slower one fewer. The manifest is written first, so a removal cut
  short leaves no set that the manifest still names.
- **A rank that lags** completes a set when it comes to its number. Others keep their files until then, but not all of them, so
  that disk space stays bounded if it never comes. Beyond :data:`consensus.checkpoint.pending.PENDING` unfinished sets a rank
  drops those of odd numbers first, then of odd multiples of 2, of 4 ...: all choose alike. Never dropped are the newest, which a
  rank comes to that was stopped and goes by the clock, and the oldest that every rank has or has still to come to: nobody drops
  that, so it will be complete. By rounds, a rank that is s times slower completes sets at numbers up to s times apart.
- **A rank that ends** (its training is over, or it is told to stop) writes a last file, which stands for it in every set of that
  number and above. The number is the next one that it has not come to, so that sets of earlier numbers stay as they are.
- **A rank that died** is named in the files of those who know: one witness excuses it from the set. Should it live after all, on
  the far side of a broken network, its file still counts where it is found.
- **A start**, the first or after a resume, has its own number, and its sets are newer than those of all starts before. So the
  files of two lives of a run never mix, and a run may be resumed from any set, not only from the newest.
- **No start's failure costs the last good set**: sets are dropped only because newer ones are complete.
"""
