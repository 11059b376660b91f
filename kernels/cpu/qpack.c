#include <string.h>

#include "kernels/cpu/packing.h"
#include "kernels/source.h"

/* Q of 16 outputs, `octets` times 8 inputs each, into a block's data. */
static void write_data(uint8_t *to, uint8_t q[PANEL][QUANT_K], enum dtype dtype, uint32_t octets) {
    for (uint32_t k = 0; k < octets * 8; k += dtype == DTYPE_W8 ? 4 : 8)
        for (uint32_t lane = 0; lane < PANEL; lane++)
            for (uint32_t i = 0; i < 4; i++) {
                uint8_t low = q[lane][k + i];
                *to++ = dtype == DTYPE_W8 ? low : (uint8_t)(low >> 4 | q[lane][k + 4 + i]);
            }
}

void pack_panel_quant(const struct packing *p, uint32_t panel) {
    const struct weight *w = p->w;
    struct quant_panel layout = quant_panel(w->k, w->dtype, w->group, w->zeros);
    uint32_t groups = quant_groups(w->k, w->group), part, row;
    uint8_t *to = (uint8_t *)p->to + panel * layout.bytes, q[PANEL][QUANT_K];
    for (uint32_t k = 0; k < w->k; k += QUANT_K, to += layout.block) {
        uint32_t count = w->k - k < QUANT_K ? w->k - k : QUANT_K;
        uint16_t *scale = (uint16_t *)(void *)to;
        memset(q, 0, sizeof q);
        for (uint32_t lane = 0; lane < PANEL; lane++) {
            if (!packing_source(p, panel, lane, &part, &row)) continue;
            const struct quant *s = p->source[part];
            source_quant(q[lane], s, w->dtype, row, w->k, k, count);
            for (uint32_t i = 0; i < quant_groups(count, w->group); i++) {
                uint32_t g = k / w->group + i;
                scale[i * PANEL + lane] = s->scale[(size_t)row * groups + g];
                if (w->zeros) to[layout.zeros + i * PANEL + lane] = quant_zero(s, row, groups, g);
            }
        }
        write_data(to + layout.data, q, w->dtype, (count + 7) / 8);
    }
}
