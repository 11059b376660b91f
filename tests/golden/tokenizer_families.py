"""Make the goldens of the tokenizer families: small tokenizers, the ids of 10,000 strings in each.

Purpose: tests/golden/tokenizers/ says what Hugging Face's tokenizers answers for strings of many
    scripts, in a tokenizer of each family that the engine reads, so that the engine can be compared
    string by string with no Python at test time. The vocabularies are trained here, on this
    repository's own texts: the real ones are large, and behave the same.

Run:     python3 tests/golden/tokenizer_families.py
Reads:   the examples' texts, this folder's sentences and its README.md.
Writes:  tokenizers/NAME/tokenizer.json
         tokenizers/NAME/ids.u32     for each line of strings.jsonl the FNV-1a hash (32 bits,
                                     little-endian) of the bytes of its ids as little-endian uint32,
                                     special tokens included
         tokenizers/NAME/text.u32    the same hash of the bytes of the decoded text, special
                                     tokens left out
         tokenizers/strings.jsonl    10,000 JSON strings, one a line
    The code points are those that Unicode 14 assigns: libraries differ in their version beyond.
    U+32FF is left out too: the reference's tables of normal forms are older than that sign.

Made with Python 3.11, tokenizers 0.23.3, sentencepiece 0.2.1 (for the table of replacements).
"""

import json
import pathlib
import random
import struct
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = HERE / "tokenizers"
STRINGS = 10_000
VOCABULARY = 900
META = "\u2581"

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
MODERN = (CONTRACTIONS + r"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}"
          r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CAPITAL, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITAL}*{SMALL}+{CONTRACTIONS}?"
         rf"|[^\r\n\p{{L}}\p{{N}}]?{CAPITAL}+{SMALL}*{CONTRACTIONS}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# Blocks that strings are drawn from: Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai,
# Hangul, kana, Han, marks, signs, symbols, full-width forms, emoji, joiners, controls, far planes.
BLOCKS = [(0x20, 0x7E)] * 12 + [(0xA0, 0x17F)] * 3 + [
    (0x1C4, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F),
    (0x2070, 0x20CF), (0x2100, 0x218F), (0x2460, 0x24FF), (0x2580, 0x27BF), (0x3000, 0x30FF),
    (0x3200, 0x33FF), (0x4E00, 0x4F80), (0xAC00, 0xAD00), (0xFB00, 0xFB4F), (0xFF00, 0xFFEF),
    (0x10400, 0x1044F), (0x1D400, 0x1D4FF), (0x1F300, 0x1F64F), (0x20000, 0x20080), (1, 0x1F)]
SPICE = ["'s", "'LL", "'re ", "\r\n", "  \n", "   ", "\t", "1234567", " 3.14", "e\u0301", "\u200d",
         META, "<s>", "</s>", " <mask>", "[SEP]", "<|end|>", "<|end|> ", "\u6cf5\u7ad9", "ICanSee",
         "HTTPServer's", "a/b//\n", "don't", "\u017fs", "\ufe0f", "\U0001f468\u200d\U0001f469",
         "<0x0A>", "##ing", "of the", "agreement", " The "]


def assigned(block):
    return [chr(c) for c in range(block[0], block[1] + 1)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co") and c != 0x32FF]


def make_strings():
    draw, pools = random.Random(20250101), [assigned(b) for b in BLOCKS]
    words = sorted({w for text in corpus() for w in text.split()})
    strings = []
    while len(strings) < STRINGS:
        parts = []
        for _ in range(draw.randint(1, 6)):
            kind = draw.random()
            if kind < 0.35:
                pool = draw.choice(pools)
                parts.append("".join(draw.choice(pool) for _ in range(draw.randint(1, 6))))
            elif kind < 0.6:
                parts.append(draw.choice(SPICE))
            else:
                parts.append(draw.choice(words)[:12] + draw.choice(["", " ", " ", "  ", ", "]))
        strings.append("".join(parts)[:48])
    return strings


def corpus():
    paths = [ROOT / "examples/contract-en.txt", ROOT / "examples/contract-zh.txt",
             ROOT / "examples/sentences.txt", HERE / "minilm/sentences.txt", HERE / "README.md"]
    return [line for path in paths for line in path.read_text(encoding="utf-8").split("\n")]


def charsmap():
    """A table of some compatibility mappings, compiled by SentencePiece from rules."""
    rules = {}
    for first, last in [(0xA0, 0x17F), (0x1E00, 0x1E99), (0x2000, 0x200A), (0x2070, 0x209C),
                        (0x2100, 0x2134), (0x2150, 0x217F), (0x2460, 0x2473), (0x3000, 0x3001),
                        (0xFB00, 0xFB06), (0xFF01, 0xFF9F), (0x1D400, 0x1D433)]:
        for c in range(first, last + 1):
            norm = unicodedata.normalize("NFKC", chr(c))
            if norm != chr(c):
                rules[chr(c)] = norm
    for c in range(0xC0, 0x17F):  # a letter and its mark, composed
        parts = unicodedata.normalize("NFD", chr(c))
        if len(parts) == 2:
            rules[parts] = chr(c)
    for c in [*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x200B, 0x200E, 0x200F, 0xFEFF]:
        rules[chr(c)] = ""
    for c in (9, 0xA, 0xC, 0xD, 0xA0, 0x3000):
        rules[chr(c)] = " "
    with tempfile.TemporaryDirectory() as folder:
        tsv = pathlib.Path(folder, "rules.tsv")
        tsv.write_text("".join(
            "\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) + "\n"
            for rule in sorted(rules.items())))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()), model_prefix=f"{folder}/m", vocab_size=2000,
            hard_vocab_limit=False, normalization_rule_tsv=str(tsv), minloglevel=2)
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(pathlib.Path(folder, "m.model").read_bytes())
        return proto.normalizer_spec.precompiled_charsmap


def bytelevel(pattern, normalizer=None, **model):
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    t.pre_tokenizer = byte if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def gpt2():
    return bytelevel(None)


def qwen2():
    return bytelevel(MODERN.format(""), normalizers.NFC())


def llama3():
    t = bytelevel(MODERN.format("{1,3}"), ignore_merges=True)
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])])
    return t


def o200k():
    return bytelevel(O200K)


def wordpiece(lower):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=lower)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(corpus(), trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def bert():
    return wordpiece(True)


def bert_cased():
    return wordpiece(False)


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def fallback(normalizer, pre_tokenizer, decoder):
    """BPE over characters with the bytes of those it does not know, as SentencePiece writes it."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizer, pre_tokenizer, decoder
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend(META),
                                               normalizers.Replace(" ", META)])
    trained.pre_tokenizer = pre_tokenizers.Split(META, "merged_with_next")
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<unk>", "<s>", "</s>", *BYTES],
        show_progress=False))
    model = json.loads(trained.to_str())["model"]
    t.model = models.BPE(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]],
                         unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


SENTENCEPIECE = [decoders.Replace(META, " "), decoders.ByteFallback(), decoders.Fuse()]


def llama2():
    return fallback(normalizers.Sequence([normalizers.Prepend(META),
                                          normalizers.Replace(" ", META)]), None,
                    decoders.Sequence([*SENTENCEPIECE, decoders.Strip(" ", 1, 0)]))


def mistral():
    return fallback(None, pre_tokenizers.Metaspace(META, "first", False),
                    decoders.Sequence([*SENTENCEPIECE, decoders.Strip(" ", 1, 0)]))


def gemma():
    return fallback(normalizers.Replace(" ", META),
                    pre_tokenizers.Split(" ", "merged_with_previous"),
                    decoders.Sequence(SENTENCEPIECE))


def unigram(byte_fallback):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap()),
                                         normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(META, "always")
    t.decoder = decoders.Metaspace(META, "always")
    special = ["<s>", "<pad>", "</s>", "<unk>", *(BYTES if byte_fallback else [])]
    t.train_from_iterator(corpus(), trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False))
    model = json.loads(t.to_str())["model"]
    t.model = models.Unigram([tuple(p) for p in model["vocab"]], 3, byte_fallback)
    if byte_fallback:  # the bytes are pieces of the model, not added tokens
        keep = json.loads(t.to_str())
        keep["added_tokens"] = [a for a in keep["added_tokens"] if a["content"] not in BYTES]
        t = Tokenizer.from_str(json.dumps(keep))
        t.decoder = decoders.Sequence([*SENTENCEPIECE, decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return t


def xlmr():
    return unigram(False)


def t5():
    return unigram(True)


def words():
    """Pre-tokenizers that the families above do not use, over the same kind of model."""
    t = unigram(False)
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(),
                                         normalizers.Lowercase(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True),
        pre_tokenizers.Metaspace(META, "always")])
    return t


def fnv(data):
    h = 0x811C9DC5
    for byte in data:
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return h


def main():
    OUT.mkdir(exist_ok=True)
    strings = make_strings()
    (OUT / "strings.jsonl").write_text(
        "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in strings), encoding="utf-8")
    for make in (gpt2, qwen2, llama3, o200k, bert, bert_cased, llama2, mistral, gemma, xlmr, t5,
                 words):
        name = make.__name__.replace("_", "-")
        folder = OUT / name
        folder.mkdir(exist_ok=True)
        text = json.dumps(json.loads(make().to_str()), ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        t = Tokenizer.from_file(str(folder / "tokenizer.json"))  # what is read is what was written
        ids, texts = [], []
        for s in strings:
            got = t.encode(s).ids
            ids.append(fnv(struct.pack(f"<{len(got)}I", *got)))
            texts.append(fnv(t.decode(got).encode()))
        (folder / "ids.u32").write_bytes(struct.pack(f"<{len(ids)}I", *ids))
        (folder / "text.u32").write_bytes(struct.pack(f"<{len(texts)}I", *texts))
        print(f"{name}: {t.get_vocab_size()} tokens, {len(text)} bytes")


if __name__ == "__main__":
    main()
