/* image_exif.c - the one EXIF tag that changes what is up: orientation.
 *
 * A TIFF block is "II*\0" or "MM\0*", the offset of the first directory, and there a count and
 * entries of 12 bytes: tag, type, count, value. Every read is inside the block. */
#include <string.h>

#include "workers/encode/image_codec.h"

#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT 3

struct tiff {
    const uint8_t *data;
    size_t len;
    bool big_endian;
};

/* A value of 2 or 4 bytes; false beyond the block. */
static bool tiff_read(const struct tiff *t, size_t at, size_t bytes, uint32_t *out) {
    if (at > t->len || t->len - at < bytes) return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++) {
        size_t k = t->big_endian ? i : bytes - 1 - i;
        *out = *out << 8 | t->data[at + k];
    }
    return true;
}

uint32_t image_exif_orientation(struct bytes tiff) {
    struct tiff t = {tiff.data, tiff.len, false};
    uint32_t magic, directory, entries, tag, type, count, value;
    if (tiff.len < 8) return 1;
    if (memcmp(t.data, "MM", 2) == 0)
        t.big_endian = true;
    else if (memcmp(t.data, "II", 2) != 0)
        return 1;
    if (!tiff_read(&t, 2, 2, &magic) || magic != 42) return 1;
    if (!tiff_read(&t, 4, 4, &directory) || !tiff_read(&t, directory, 2, &entries)) return 1;
    for (uint32_t i = 0; i < entries; i++) {
        size_t at = (size_t)directory + 2 + (size_t)i * 12;
        if (!tiff_read(&t, at, 2, &tag) || !tiff_read(&t, at + 2, 2, &type) ||
            !tiff_read(&t, at + 4, 4, &count) || !tiff_read(&t, at + 8, 2, &value))
            return 1;
        if (tag == TAG_ORIENTATION)
            return type == TYPE_SHORT && count == 1 && value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

struct bytes image_exif_find(struct bytes jpeg) {
    static const char head[6] = "Exif\0";
    const uint8_t *p = jpeg.data;
    size_t at = 2; /* behind SOI */
    /* Segments before the image data: FF, marker, two bytes of length that count themselves. */
    while (at + 4 <= jpeg.len && p[at] == 0xFF) {
        uint8_t marker = p[at + 1];
        if (marker == 0xFF) { /* fill byte */
            at++;
            continue;
        }
        size_t len = (size_t)p[at + 2] << 8 | p[at + 3];
        if (marker < 0xC0 || marker == 0xDA || marker == 0xD9 || len < 2) break;
        if (jpeg.len - at - 2 < len) break;
        if (marker == 0xE1 && len >= 2 + sizeof head && memcmp(p + at + 4, head, sizeof head) == 0)
            return bytes_of(p + at + 4 + sizeof head, len - 2 - sizeof head);
        at += 2 + len;
    }
    return (struct bytes){NULL, 0};
}
