/* output.h - the helper's side of frames.h: frames onto standard output.
 *
 * Units: bytes, points.  Owner: the caller embeds it; zero-fill.  Memory: one frame.
 * Errors: none are returned: a helper whose reader is gone, or that has no memory for a frame, has
 * nothing left to do and ends.  Threads: one. */
#ifndef PENSTOCK_WORKERS_EXTRACT_OUTPUT_H
#define PENSTOCK_WORKERS_EXTRACT_OUTPUT_H

#include <stdint.h>

#include "base/bytes.h"
#include "workers/encode/extract.h"
#include "workers/extract/frames.h"

struct output {
    struct buf frame;
    bool has_boxes; /* set by hello */
};

void output_hello(struct output *o, const char *format, const char *encoding, bool has_boxes,
                  uint32_t pages_in);
/* number, size, outcome and reason of p; boxes has one entry a code point where the format has
 * boxes. */
void output_page(struct output *o, const struct extract_page *p, struct bytes text,
                 const struct extract_box *boxes, uint32_t chars);
void output_bad(struct output *o, enum frame_bad kind, const char *reason);
void output_end(struct output *o);

/* Safe in a signal handler between two frames: writes one small frame from the stack. */
void output_death(enum frame_death cause, const char *detail);

#endif
