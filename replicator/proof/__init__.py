"""Proof that what the bucket holds can be restored: looked at (verify), tried (drill), and kept
true (guard).

    reach    which transactions can be restored, from what the objects say; pure
    chain    whether the objects lead from one to the next; pure
    sample   which objects a partial look reads; pure
    content  every byte of one object
    verify   all of it as a report
    drill    a restore to scratch, checked and recorded
    guard    the thread of the sidecar: drills on time, repairs the present

What is proved and found is noted in the bucket; see :mod:`replicator.notes`.
"""
