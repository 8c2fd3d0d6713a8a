"""The bank: the teacher's features, stored once for every view and replayed afterwards.

A bank that training fills is one table in a directory:

    manifest.json   the contract: what the records depend on, and how they are encoded
    records.bin     one record for every (view, image): the teacher's features, end to end
    checks.bin      one checksum for every record; 0 where nothing is stored

Records are ordered by view, then by image: an epoch reads one contiguous part, and a bank grows at
its end. Both binary files have their full size from the start; records that are not written yet are
a hole, which takes no room on the disk. A record is written before its checksum, so that a process
killed in between leaves a record that counts as empty; so does one that does not fit its checksum
(a torn write, a flipped bit): the teacher computes it again. One process writes at a time, which
holds the lock `.lock`, and the records that a process is about to compute are locked in `.claims`.
A bank has every view of small images, whose crops and mirrors are few (162 for CIFAR), and
otherwise as many views of each image as asked for.

A bank in shards (`_shards.py`) has the same contract, codecs and records, in files that are
complete or absent: any number of processes build it without a lock, in a folder or at an address
such as `s3://bucket/bank`.
"""

from understudy.bank._bank import Bank as Bank
from understudy.bank._bank import RecordsDropped as RecordsDropped
from understudy.bank._bank import Resident as Resident
from understudy.bank._division import BATCH as BATCH
from understudy.bank._division import Shard as Shard
from understudy.bank._division import share as share
from understudy.bank._open import in_shards as in_shards
from understudy.bank._open import make_shards as make_shards
from understudy.bank._open import open_bank as open_bank
from understudy.bank._shards import Shards as Shards
from understudy.bank._shards import missing as missing
from understudy.bank._store import is_remote as is_remote
from understudy.bank._store import local_folder as local_folder
from understudy.bank._store import normal as normal
from understudy.bank._table import Table as Table
from understudy.bank.manifest import Contract as Contract
