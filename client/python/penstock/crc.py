"""CRC32C (Castagnoli), which Python's own library does not have, at some ten MB a second.

The data is cut into lanes of equal length, and all lanes advance together: a byte of every lane is one
slice, its step through the table one bytes.translate, an exclusive or one operation on long integers.
What the lanes found is then joined pairwise, which takes a lane's CRC past the zeros behind it: that is
linear, so it is a few more tables.
"""
from __future__ import annotations

POLYNOMIAL = 0x82F63B78  # reflected
LANE = 256               # bytes of a lane
PLANES = range(4)        # a CRC's bytes, each with a table and, for many lanes, a string of its own


def _step(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (POLYNOMIAL & -(crc & 1))
    return crc


TABLE = [_step(byte) for byte in range(256)]
STEP = [bytes(word >> 8 * plane & 0xFF for word in TABLE) for plane in PLANES]


def plain(data: bytes, state: int) -> int:
    """The state after these bytes, one by one."""
    for byte in data:
        state = (state >> 8) ^ TABLE[(state ^ byte) & 0xFF]
    return state


def _xor(*strings: bytes) -> bytes:
    result = 0
    for string in strings:
        result ^= int.from_bytes(string, "little")
    return result.to_bytes(len(strings[0]), "little")


def _apply(columns: list[int], word: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if word >> bit & 1:
            result ^= column
    return result


def _past_zeros(count: int) -> list[int]:
    """What becomes of each bit of a state that passes so many zeros, a power of two."""
    columns = [plain(b"\0", 1 << bit) for bit in range(32)]
    while count > 1:
        columns = [_apply(columns, column) for column in columns]
        count //= 2
    return columns


def _tables(columns: list[int]) -> list[list[bytes]]:
    """The same as tables: [byte of the old state][byte of the new one]."""
    words = [[_apply(columns, byte << 8 * old) for byte in range(256)] for old in PLANES]
    return [[bytes(word >> 8 * new & 0xFF for word in row) for new in PLANES] for row in words]


_joins: dict[int, list[list[bytes]]] = {}


def _join(planes: list[bytes], length: int) -> int:
    """One state from those of a power of two lanes of `length` bytes, the first one's in front."""
    while len(planes[0]) > 1:
        tables = _joins.get(length)
        if tables is None:
            tables = _joins[length] = _tables(_past_zeros(length))
        left = [plane[0::2] for plane in planes]
        planes = [_xor(planes[new][1::2],
                       *(left[old].translate(tables[old][new]) for old in PLANES))
                  for new in PLANES]
        length *= 2
    return sum(planes[plane][0] << 8 * plane for plane in PLANES)


def _lanes(data: bytes, lanes: int) -> int:
    """The state after lanes * LANE bytes, from 0."""
    planes = [bytes(lanes)] * 4
    for at in range(LANE):
        index = _xor(planes[0], data[at::LANE])
        planes = [_xor(planes[plane + 1], index.translate(STEP[plane])) for plane in range(3)] + [
            index.translate(STEP[3])]
    return _join(planes, LANE)


def crc32c(data: bytes) -> int:
    """The CRC32C of the data."""
    state, at = 0xFFFFFFFF, 0
    while len(data) - at >= 64 * LANE:
        lanes = 1 << ((len(data) - at) // LANE).bit_length() - 1
        size = lanes * LANE
        # The state so far passes as many zeros as there are bytes; what they do is added.
        state = _apply(_past_zeros(size), state) ^ _lanes(data[at:at + size], lanes)
        at += size
    return plain(data[at:], state) ^ 0xFFFFFFFF
