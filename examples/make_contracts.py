#!/usr/bin/python3
"""Typeset the sample contracts of this folder as PDF. The same input gives the same bytes.

usage: make_contracts.py [DIR]      DIR: where to write, default: the folder of this script

Needs Debian's python3-reportlab, fonts-liberation and fonts-lxgw-wenkai. Both fonts have the SIL Open
Font License, which lets documents embed them under any terms; only the glyphs that occur are embedded.
"""
import pathlib
import re
import sys

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY, TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (BaseDocTemplate, CondPageBreak, Frame, HRFlowable, KeepTogether,
                                PageTemplate, Paragraph, Spacer, Table)

HERE = pathlib.Path(__file__).resolve().parent
FONTS = pathlib.Path("/usr/share/fonts/truetype")
INK, RULE, PALE = HexColor("#1a1a1a"), HexColor("#5b6b7a"), HexColor("#5b6470")
MARGIN = 25 * mm

# What differs between the languages; `head` stands on every page but the first.
LOOKS = {
    "en": {"fonts": ("liberation/LiberationSerif-Regular.ttf", "liberation/LiberationSerif-Bold.ttf"),
           "head": "Larkfield Sensors Inc. / Brightwater Assembly Ltd.", "page": "Page {} of {}",
           "heading": r"\d+\. [A-Z]|[A-Z ]{10,}$", "size": 10.5, "leading": 15, "align": TA_JUSTIFY},
    "zh": {"fonts": ("lxgw-wenkai/LXGWWenKai-Regular.ttf", "lxgw-wenkai/LXGWWenKai-Bold.ttf"),
           "head": "设备采购与服务合同　QH-2026-0318", "page": "第 {} 页　共 {} 页",
           "heading": r"第.{1,3}条 ", "size": 11, "leading": 18.5, "align": TA_LEFT},
}


def styles(look, language):
    regular, bold = f"{language}-regular", f"{language}-bold"
    for name, path in zip((regular, bold), look["fonts"]):
        pdfmetrics.registerFont(TTFont(name, FONTS / path))
    base = {"fontName": regular, "fontSize": look["size"], "leading": look["leading"],
            "textColor": INK}
    made = {
        "title": {"fontName": bold, "fontSize": 17, "leading": 24, "alignment": TA_CENTER},
        "heading": {"fontName": bold, "fontSize": look["size"] + 1, "spaceBefore": 9, "spaceAfter": 4},
        "text": {"alignment": look["align"], "spaceAfter": 6, "allowOrphans": 1},
        "line": {"spaceAfter": 3},
        "item": {"alignment": TA_JUSTIFY, "leftIndent": 16, "spaceAfter": 3},
    }
    return {name: ParagraphStyle(f"{language}-{name}", **{**base, **more})
            for name, more in made.items()}


def curly(text):
    """Straight quotes as a typesetter writes them."""
    text = re.sub(r'(^|[\s(])"', r"\1“", text).replace('"', "”")
    return text.replace("'", "’")


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def wrapped(text, style, width):
    """Chinese text with its line breaks: anywhere but in a run of letters and figures, never in front
    of a mark that closes or behind one that opens."""
    lines, line = [], ""
    for piece in re.findall(r"[（“][^\s]|[A-Za-z0-9.,%¥-]+|.", text):
        if pdfmetrics.stringWidth(line + piece, style.fontName, style.fontSize) > width:
            keep = re.search(r".[，。；：、）”]*$" if piece in "，。；：、）”" else r"$", line).start()
            lines.append(line[:keep])
            line = line[keep:]
        line += piece
    return "<br/>".join(escape(each) for each in lines + [line])


def paragraphs(text, language):
    """Yield (what, lines): English paragraphs are hard-wrapped and parted by blank lines or items,
    Chinese ones have a line each."""
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.split("\n")
        columns = [re.split(r"\s{3,}", line) for line in lines if line.strip()]
        if all(len(cells) == 2 for cells in columns):
            yield "table", columns
        elif language == "en":
            for part in re.split(r"\n(?=\([a-z]\) )", curly(block)):
                yield ("item" if part.startswith("(") else "text"), " ".join(part.split("\n"))
        else:
            for line in lines:
                yield ("text" if len(line) > 40 else "line"), line


def signatures(blocks, style):
    rows = [[Paragraph(escape(cell), style) for cell in cells]
            for block in blocks for cells in block]
    return Table(rows, colWidths=["50%", "50%"], hAlign="LEFT",
                 style=[("LEFTPADDING", (0, 0), (-1, -1), 0), ("VALIGN", (0, 0), (-1, -1), "TOP"),
                        ("TOPPADDING", (0, 0), (-1, -1), 2), ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
                        ("LINEABOVE", (0, 0), (-1, 0), 0.6, RULE)])


def story(text, look, language):
    style = styles(look, language)
    made, tables = [], []
    for n, (what, content) in enumerate(paragraphs(text, language)):
        if what == "table":
            tables.append(content)
        elif n == 0:
            made += [Paragraph(escape(content), style["title"]), Spacer(1, 3),
                     HRFlowable(width="30%", thickness=0.8, color=RULE), Spacer(1, 12)]
        elif re.match(look["heading"], content) and len(content) < 60:
            made += [CondPageBreak(48), Paragraph(escape(content), style["heading"])]
        else:
            width = A4[0] - 2 * MARGIN
            markup = wrapped(content, style[what], width) if language == "zh" else escape(content)
            made.append(Paragraph(markup, style[what]))
    closing = [made.pop(), Spacer(1, 14), signatures(tables, style["line"])]
    return made + [KeepTogether(closing)]


class Contract(BaseDocTemplate):
    """Built twice: the first pass counts the pages that the second one names."""

    def __init__(self, path, look, language, title, pages):
        super().__init__(str(path), pagesize=A4, leftMargin=MARGIN, rightMargin=MARGIN, topMargin=28 * mm,
                         bottomMargin=26 * mm, title=title, author="Penstock", lang=language,
                         invariant=1)
        self.look, self.font, self.pages = look, f"{language}-regular", pages
        frame = Frame(self.leftMargin, self.bottomMargin, self.width, self.height, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate("page", [frame], onPage=self.furniture))

    def furniture(self, canvas, _):
        number = canvas.getPageNumber()
        canvas.saveState()
        canvas.setFont(self.font, 8.5)
        canvas.setFillColor(PALE)
        canvas.setStrokeColor(RULE)
        canvas.setLineWidth(0.4)
        if number > 1:
            canvas.drawString(MARGIN, A4[1] - 17 * mm, self.look["head"])
            canvas.line(MARGIN, A4[1] - 19 * mm, A4[0] - MARGIN, A4[1] - 19 * mm)
        canvas.drawCentredString(A4[0] / 2, 14 * mm, self.look["page"].format(number, self.pages))
        canvas.restoreState()


def make(language, folder):
    look = LOOKS[language]
    text = (HERE / f"contract-{language}.txt").read_text(encoding="utf-8")
    path, pages = folder / f"contract-{language}.pdf", 1
    for _ in range(2):
        document = Contract(path, look, language, text.split("\n", 1)[0], pages)
        document.build(story(text, look, language))
        pages = document.page
    print(f"{path.name}: {pages} pages, {path.stat().st_size} bytes")


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    make("en", target)
    make("zh", target)
