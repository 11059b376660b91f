/* packing.h - one weight on its way from its sources to panels of 16 outputs.
 *
 * Units: elements.  Owner: the call that packs.  Memory, errors: none.
 * Threads: any, each with panels of its own. */
#ifndef PENSTOCK_KERNELS_CPU_PACKING_H
#define PENSTOCK_KERNELS_CPU_PACKING_H

#include "kernels/cpu/cpu.h"

/* Parts stacked along n, or two parts whose panels alternate. */
struct packing {
    const struct weight *w;
    uint32_t parts, panels;
    bool pair;
    const uint32_t *n;
    const void *const *source;
    enum dtype dtype; /* of the sources */
    char *to;
};

/* Where output row `lane` of a panel comes from; false beyond n. */
bool packing_source(const struct packing *p, uint32_t panel, uint32_t lane, uint32_t *part,
                    uint32_t *row);

/* qpack.c: a panel of W8 or W4, as quant.h says. */
void pack_panel_quant(const struct packing *p, uint32_t panel);

#endif
