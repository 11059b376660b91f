#include "workers/stage.h"

#include <stddef.h>

#include "workers/encode/stages.h"
#include "workers/infer/stages.h"
#include "workers/post/stages.h"

static const struct stage_program *const programs[] = {
    &stage_encode_texts,  &stage_encode_prompt, &stage_encode_document, &stage_encode_contract,
    &stage_encode_part,   &stage_infer_embed,   &stage_infer_generate,  &stage_post_embed,
    &stage_post_generate, &stage_post_contract, &stage_post_qc,
};

const struct stage_program *stage_at(uint32_t i) {
    return i < sizeof programs / sizeof *programs ? programs[i] : NULL;
}

const struct stage_program *stage_find(struct bytes run) {
    for (uint32_t i = 0; stage_at(i); i++)
        if (bytes_is(run, stage_at(i)->run)) return stage_at(i);
    return NULL;
}
