#!/usr/bin/python3
"""Draw the inspection samples of this folder: a board's reference image, a good and a bad part of it,
and the device logs of both. Everything follows from the code and a fixed seed; standard library only.

usage: make_samples.py [DIR]      DIR: where to write, default: the folder of this script

board-a.png            the reference, 320 x 240, 8-bit RGB
part-ok.png            the same board, 3 pixels to the right and 2 up, a little darker, with noise
part-ng.png            elsewhere and as noisy; resistor R7 is missing, solder bridges two pads of U2
part-ok.log part-ng.log    what the placement machine wrote while it made them
part-ng.csv part-ng.jsonl  the bad part's log as CSV and as JSON lines
"""
import json
import pathlib
import struct
import sys
import zlib

WIDTH, HEIGHT = 320, 240
BOARD, COPPER, SOLDER = (22, 92, 48), (46, 128, 70), (196, 198, 202)
CHIP, INK, RESISTOR, HOLE = (34, 36, 40), (226, 228, 220), (58, 52, 46), (12, 12, 12)


class Noise:
    """A linear congruential generator: the same noise on every machine and Python."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


class Picture:
    def __init__(self):
        self.rows = [[BOARD] * WIDTH for _ in range(HEIGHT)]

    def box(self, x, y, width, height, colour):
        for v in range(max(y, 0), min(y + height, HEIGHT)):
            for u in range(max(x, 0), min(x + width, WIDTH)):
                self.rows[v][u] = colour

    def disc(self, x, y, radius, colour):
        for v in range(max(y - radius, 0), min(y + radius + 1, HEIGHT)):
            for u in range(max(x - radius, 0), min(x + radius + 1, WIDTH)):
                if (u - x) ** 2 + (v - y) ** 2 <= radius * radius:
                    self.rows[v][u] = colour

    def png(self):
        raw = b"".join(b"\2" + bytes(self._up(y)) for y in range(HEIGHT))
        head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
        return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9))
                + chunk(b"IEND", b""))

    def _up(self, y):
        """Row y as differences to the row above (PNG filter 2)."""
        above = self.rows[y - 1] if y > 0 else [(0, 0, 0)] * WIDTH
        for here, there in zip(self.rows[y], above):
            for a, b in zip(here, there):
                yield (a - b) % 256


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def chip(picture, x, y, pins):
    """A chip with pins on its left and right, pin 1 marked."""
    for pin in range(pins):
        picture.box(x - 8, y + 4 + pin * 9, 9, 4, SOLDER)
        picture.box(x + 33, y + 4 + pin * 9, 9, 4, SOLDER)
    picture.box(x, y, 34, pins * 9 + 3, CHIP)
    picture.disc(x + 6, y + 6, 2, INK)


def resistor(picture, x, y, present=True):
    picture.box(x, y, 6, 9, SOLDER)
    picture.box(x + 14, y, 6, 9, SOLDER)
    if present:
        picture.box(x + 4, y, 12, 9, RESISTOR)


def board(bad=False):
    picture = Picture()
    for line in range(7):
        picture.box(0, 100 + line * 9, 120, 3, COPPER)
        picture.box(200, 40 + line * 9, 120, 3, COPPER)
    picture.box(60, 20, 4, 200, COPPER)
    picture.box(230, 120, 4, 100, COPPER)
    for x, y in ((14, 14), (305, 14), (14, 225), (305, 225)):
        picture.disc(x, y, 8, SOLDER)
        picture.disc(x, y, 4, HOLE)
    chip(picture, 132, 30, 6)
    chip(picture, 132, 120, 8)
    for index in range(8):
        missing = bad and index == 6
        resistor(picture, 30 + 58 * (index % 2) + 160 * (index // 4), 40 + 36 * (index % 4),
                 not missing)
    picture.box(250, 195, 40, 14, INK)
    picture.box(253, 198, 34, 8, BOARD)
    if bad:
        picture.box(166, 135, 7, 13, SOLDER)        # across two pins of U2
    return picture


def taken(picture, dx, dy, light, seed):
    """The picture as a camera takes it: moved, darker or brighter, with noise."""
    noise, out = Noise(seed), Picture()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            u, v = min(max(x - dx, 0), WIDTH - 1), min(max(y - dy, 0), HEIGHT - 1)
            add = noise.below(5) - 2
            out.rows[y][x] = tuple(min(max(c * light // 100 + add, 0), 255)
                                   for c in picture.rows[v][u])
    return out


def good_log():
    lines = ["INFO  placer P3 job 4711 board SN20261123-0041 started",
             "INFO  vacuum nozzle=4 pressure=-68.2kPa"]
    for step in range(1, 9):
        lines.append(f"INFO  pick component R{step} feeder=F{11 + step % 3} nozzle=4 "
                     f"pressure=-{67.4 + step % 3 * 0.3:.1f}kPa")
        lines.append(f"INFO  place component R{step} x={30.5 + step:.2f} y={12.25 + step:.2f} "
                     f"force={2.1 + step % 2 * 0.1:.1f}N")
    lines += ["INFO  oven zone 5 temperature: 243.1C peak=244.0C",
              "INFO  board SN20261123-0041 finished cycle=18.4s"]
    return lines


def bad_log():
    lines = ["INFO  placer P3 job 4711 board SN20261123-0042 started",
             "INFO  vacuum nozzle=4 pressure=-66.9kPa"]
    for step in range(1, 9):
        pressure = 66.0 - step * 1.7
        lines.append(f"INFO  pick component R{step} feeder=F{11 + step % 3} nozzle=4 "
                     f"pressure=-{pressure:.1f}kPa")
        if step == 5:
            lines.append("WARN  nozzle 4 vacuum below limit, pressure=-41.3kPa limit=-50kPa")
        if step == 7:
            lines += ["ERROR component R7 lost from nozzle 4 during travel, part not on head",
                      "WARN  vacuum filter of nozzle 4 is due for cleaning"]
            continue
        lines.append(f"INFO  place component R{step} x={30.5 + step:.2f} y={12.25 + step:.2f} "
                     f"force={2.1 + step % 2 * 0.1:.1f}N")
    lines += ["INFO  oven zone 5 temperature: 243.4C peak=244.2C",
              "INFO  board SN20261123-0042 finished cycle=19.9s"]
    return lines


def stamped(lines):
    return "".join(f"2026-11-23 09:{14 + n // 60:02d}:{n % 60:02d}.250 {line}\n"
                   for n, line in enumerate(lines))


def rows_of(lines):
    """Time, level, message and pressure of each line, for the other two formats."""
    for n, line in enumerate(lines):
        level, message = line.split(None, 1)
        pressure = next((word[9:-3] for word in message.replace(",", "").split()
                         if word.startswith("pressure=")), "")
        yield f"2026-11-23T09:14:{n:02d}.250Z", level, message, pressure


def csv_of(lines):
    out = ["time,level,message,vacuum_kpa\r\n"]
    for time, level, message, pressure in rows_of(lines):
        quoted = '"' + message.replace('"', '""') + '"'
        out.append(f"{time},{level},{quoted},{pressure}\r\n")
    return "".join(out)


def jsonl_of(lines):
    out = []
    for time, level, message, pressure in rows_of(lines):
        row = {"time": time, "level": level, "message": message}
        if pressure:
            row["vacuum_kpa"] = float(pressure)
        out.append(json.dumps(row) + "\n")
    return "".join(out)


def main():
    to = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
    to = to if to.is_dir() else to.parent
    (to / "board-a.png").write_bytes(board().png())
    (to / "part-ok.png").write_bytes(taken(board(), 3, -2, 93, 1).png())
    (to / "part-ng.png").write_bytes(taken(board(bad=True), -4, 1, 104, 2).png())
    (to / "part-ok.log").write_text(stamped(good_log()), encoding="utf-8", newline="")
    (to / "part-ng.log").write_text(stamped(bad_log()), encoding="utf-8", newline="")
    (to / "part-ng.csv").write_text(csv_of(bad_log()), encoding="utf-8", newline="")
    (to / "part-ng.jsonl").write_text(jsonl_of(bad_log()), encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
