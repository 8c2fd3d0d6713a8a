"""Open the bank at a place, whichever form it has; make one in shards."""

from understudy import files
from understudy.bank._bank import Bank
from understudy.bank._division import Division
from understudy.bank._shards import LAYOUT, Shards
from understudy.bank._store import Store, layout_of
from understudy.bank._table import Table
from understudy.bank.manifest import Contract
from understudy.bank.maps import LAYOUT_IN_SHARDS, refuse_maps
from understudy.errors import BankError


def in_shards(place: str) -> bool:
    """Return True if a bank at a place is one in shards, or could be no other.

    Raises:
        BankError: The place cannot be read.
    """
    store = Store(place)
    return store.local is None or layout_of(store) in (LAYOUT, LAYOUT_IN_SHARDS)


def open_bank(place: str, contract: Contract, *, create: bool = True) -> Bank:
    """Return the bank at a place.

    Args:
        place: Folder or address.
        contract: What its records must depend on.
        create: Make a table that does not exist, and enlarge one that has fewer views.

    Raises:
        BankError: There is another bank, or none where none can be made.
    """
    store = Store(place)
    layout = layout_of(store)
    refuse_maps(layout, store.place)
    if store.local is None or layout == LAYOUT:
        return Shards(store, contract)
    return Table(store.local, contract, create=create)


def make_shards(
    place: str, contract: Contract, *, few_views: bool, images: int | None = None
) -> Shards:
    """Return the bank in shards at a place, made if there is none.

    Args:
        place: Folder or address.
        contract: What its records depend on.
        few_views: Every image has the same finite number of views.
        images: Images of a shard; default: as the bank has it, or else as many as are handy.

    Raises:
        BankError: There is another bank, or it is divided in another way.
    """
    store = Store(place)
    layout = layout_of(store)
    refuse_maps(layout, store.place)
    if layout not in ("", LAYOUT):
        raise BankError(
            f"{place} holds a bank that is one table, which training fills: leave --shards out, or "
            "name another folder by bank.path."
        )
    if store.local is not None:
        files.remove_abandoned(store.local, r"\.shard-.*")
    if layout == LAYOUT and images is None:
        return Shards(store, contract)
    division = Division.chosen(contract, few_views=few_views, images=images)
    return Shards(store, contract, division=division)
