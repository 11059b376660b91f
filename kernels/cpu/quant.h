/* quant.h - how weights of W8 and W4 lie packed: panels of 16 outputs in blocks of 256 inputs.
 *
 * A panel is its blocks of k, one after the other, and a block is
 *   scales  [group][16] bf16,
 *   zeros   [group][16] bytes, where the weight has zero points; padded to a multiple of 64 bytes,
 *   data    W8: [k / 4][16][4] bytes;
 *           W4: [k / 8][16][4] bytes, k .. k+3 of an output in the low nibbles of its four bytes
 *           and k+4 .. k+7 in the high ones,
 * so that a panel is read from its first byte to its last. The data of the last block ends at a
 * multiple of 8 inputs. What is beyond n or k is zero. The layout is the same at every level.
 *
 * Units: bytes and inputs.  Owner, memory, errors: none.  Threads: any. */
#ifndef PENSTOCK_KERNELS_CPU_QUANT_H
#define PENSTOCK_KERNELS_CPU_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

enum { QUANT_K = 256, QUANT_GROUPS = QUANT_K / 32 }; /* inputs of a block, and groups at most */

struct quant_panel {
    size_t bytes;        /* of a panel */
    size_t block, zeros; /* from one block to the next; where in a block the zero points begin, */
    size_t data;         /* and the data */
    uint32_t octet;      /* bytes of 8 inputs of 16 outputs */
};

static inline struct quant_panel quant_panel(uint32_t k, enum dtype dtype, uint32_t group,
                                             bool zeros) {
    struct quant_panel p = {.zeros = QUANT_K / group * 32, .octet = dtype == DTYPE_W8 ? 128 : 64};
    p.data = (p.zeros + (zeros ? QUANT_K / group * 16 : 0) + 63) / 64 * 64;
    p.block = p.data + QUANT_K / 8 * p.octet;
    p.bytes = k / QUANT_K * p.block;
    if (k % QUANT_K) p.bytes += p.data + (k % QUANT_K + 7) / 8 * p.octet;
    return p;
}

#endif
