/* extract_read.h - what a helper says (workers/extract/frames.h), checked before it is believed.
 *
 * A helper that was taken over by its document may say anything. Here nothing is taken that does
 * not fit: lengths against what is there, text as UTF-8, boxes on the page and one a character,
 * pages in order, and all together under the output limit. The same reader goes on with the next
 * helper's frames after extract_reader_restart.
 *
 * Units:   bytes, points, code points.
 * Owner:   the caller embeds it; pages and reasons lie in its arena, text and boxes in its bufs.
 * Memory:  as above; one frame is buffered.
 * Errors:  ERR_CORRUPT (the frames are not well-formed), ERR_LIMIT (the output limit), -ENOMEM;
 *          after one nothing more is read until a restart.
 * Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_ENCODE_EXTRACT_READ_H
#define PENSTOCK_WORKERS_ENCODE_EXTRACT_READ_H

#include "workers/encode/extract.h"
#include "workers/extract/frames.h"

#define EXTRACT_REASON_BYTES 300u /* the longest reason that a helper may give */

struct extract_reader {
    struct arena *a;
    uint64_t output_bytes;  /* the limit */
    bool hello, end;        /* said by this helper */
    enum frame_bad bad;     /* 0, or why the document cannot be read, with the reason in said */
    enum frame_death death; /* 0, or what the sandbox ended it for, with the detail in said */
    char said[EXTRACT_REASON_BYTES + 1];

    bool has_boxes;
    const char *format, *encoding; /* static; NULL before the first HELLO */
    struct extract_page *pages;    /* [pages_in], of which `next` are known */
    uint32_t pages_in, next;
    uint32_t chars;
    struct buf in, text, boxes;
};

void extract_reader_init(struct extract_reader *r, struct arena *a, uint64_t output_bytes);
void extract_reader_fini(struct extract_reader *r); /* accepts zeroed memory */
void extract_reader_restart(struct extract_reader *r);
int extract_reader_feed(struct extract_reader *r, const void *data, size_t bytes);

/* Notes the next page as failed; reason is borrowed as long as the arena lives. */
void extract_reader_fail_page(struct extract_reader *r, const char *reason);

#endif
