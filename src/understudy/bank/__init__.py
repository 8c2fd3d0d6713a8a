"""The bank: the teacher's outputs, stored once for every view it has seen and replayed after that.

A bank is a directory with

    manifest.json   what the records depend on, and the form of a record
    records.bin     one record for every (view, image): the teacher's features, end to end
    checks.bin      one checksum for every record; 0 where nothing is stored yet

Rows are ordered by view, then image, so that an epoch over many images reads one slab, and a bank
grows at its end. Both binary files have their full size from the start, as a hole: an empty one
takes no room on the disk. A record is written before its checksum, so that a process killed in
between leaves a record that counts as empty. A table is complete for small images, whose crops and
mirrors are few (162 for CIFAR), and holds as many views as asked for otherwise.
"""

from understudy.bank._bank import Bank as Bank
from understudy.bank._bank import Resident as Resident
from understudy.bank.manifest import Contract as Contract
