/* flat.h - a contract's text with its sentences in one piece, for grammars to read.
 *
 * Inside a clause the end of a full line is where the page ended: it becomes a blank, or nothing
 * between two Han characters and behind the hyphen of a divided word, which goes too ("Decem-"
 * "ber"; "thirty-" "one" keeps its own). A line is full from three quarters of the widest on, a Han
 * character being as wide as two letters. Line ends elsewhere stay. What is found is put back to
 * its place.
 *
 * Units: bytes.  Owner: the copy lives in the arena.  Memory: the text once, 8 bytes a change.
 * Errors: -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_FLAT_H
#define PENSTOCK_WORKERS_POST_FLAT_H

#include "workers/post/entities.h"

struct flat {
    struct bytes text;
    struct flat_change {
        uint32_t flat, text; /* from here on both run in step, until the next change */
    } * changes;
    uint32_t n;
};
int flat_make(struct flat *f, struct bytes text, const struct clauses *cs, struct arena *a);
/* Gives entities found in f->text their places in text; names and roles stay as they were read. */
void flat_restore(const struct flat *f, struct bytes text, struct entities *e);

#endif
