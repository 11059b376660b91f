/* frames.h - what penstock-extract says on its standard output, page by page.
 *
 * A frame is: u32le bytes of what follows, u8 type, body. Numbers are little-endian, a float is its
 * IEEE bits, a string is u32le length and UTF-8. The first frame is HELLO or BAD, the last one END,
 * BAD or DEATH; a helper that was killed ends anywhere.
 *
 *   HELLO  u16 version, u8 has_boxes, u32 pages_in, string format, string encoding
 *   PAGE   u32 number, u8 outcome (enum extract_outcome), f32 width_pt, f32 height_pt,
 *          string text, string reason, and if has_boxes: per code point f32 x0, y0, x1, y1
 *   BAD    u8 kind (enum frame_bad), string reason: the document cannot be read
 *   DEATH  u8 cause (enum frame_death), string detail: the sandbox ended the helper
 *   END    nothing: all pages that were asked for were said
 *
 * This file belongs to the engine (Apache-2.0); it is all that helper and worker share.
 *
 * Units: bytes, points.  Owner, memory, errors, threads: none. */
#ifndef PENSTOCK_WORKERS_EXTRACT_FRAMES_H
#define PENSTOCK_WORKERS_EXTRACT_FRAMES_H

#define FRAME_VERSION 1u
#define FRAME_BOX_BYTES 16u

enum frame_type { FRAME_HELLO = 1, FRAME_PAGE, FRAME_BAD, FRAME_DEATH, FRAME_END };
enum frame_bad {
    FRAME_BAD_DOCUMENT = 1, /* damaged, encrypted, of an unknown format */
    FRAME_BAD_LIMIT,        /* too large, too many pages */
    FRAME_BAD_SYSTEM        /* not the document's fault: the sandbox cannot be set up */
};
enum frame_death { FRAME_DEATH_MEMORY = 1, FRAME_DEATH_SYSCALL };

#endif
