/* limits.h - every fixed cap of the engine, in one place.
 *
 * A cap is a promise that nothing grows without bound; reaching one is an answer (ERR_LIMIT or
 * ERR_FULL with the limit named), never a crash. Limits that an operator may lower are defaults
 * here and fields of the broker's or worker's configuration there.
 *
 * Units: in the names.  Owner, memory, errors, threads: none. */
#ifndef PENSTOCK_BASE_LIMITS_H
#define PENSTOCK_BASE_LIMITS_H

/* The wire. A message is at most LIMIT_FRAMES frames of LIMIT_FRAME_BYTES. */
#define LIMIT_FRAME_BYTES (1024u * 1024u)
#define LIMIT_FRAMES (2u + 2u * LIMIT_PARTS) /* of a lease: tag, header, body and input in parts */
#define LIMIT_HEADER_BYTES (64u * 1024u)
#define LIMIT_MANY 256u                /* messages in one MANY */
#define LIMIT_MANY_BYTES (64u * 1024u) /* with more of them, what follows goes into another one */
#define LIMIT_MANY_ITEM_BYTES (16u * 1024u) /* a payload, or a header, that is longer goes alone */
#define LIMIT_PACK_DEPTH 16u
#define LIMIT_PACK_ITEMS (1024u * 1024u) /* elements in one msgpack document, all levels */

/* What zmq holds for one peer that reads slowly, and for all of one socket together. */
#define LIMIT_PEER_INFLIGHT_BYTES (128ull * 1024 * 1024)
#define LIMIT_INFLIGHT_BYTES (1024ull * 1024 * 1024)

/* Jobs. A body, a stage output or a result is cut into at most LIMIT_PARTS frames; a body of more
 * than one is uploaded before it is submitted. */
#define LIMIT_PARTS 16u
#define LIMIT_BODY_BYTES (LIMIT_PARTS * LIMIT_FRAME_BYTES)
#define LIMIT_OUTPUT_BYTES (LIMIT_PARTS * LIMIT_FRAME_BYTES)
#define LIMIT_NAME_BYTES 64u /* kinds, pipelines, stages, models, worker names, tenants */
#define LIMIT_KEY_BYTES 256u /* idempotency keys */
#define LIMIT_REASON_BYTES 512u
#define LIMIT_BATCH_JOBS 1024u /* submitted in one message */
#define LIMIT_CHILDREN 256u    /* jobs that one stage of a job fans out to */
#define LIMIT_STAGES 16u       /* a pipeline */
#define LIMIT_PIPELINES 64u
#define LIMIT_ATTEMPTS 16u       /* kept in a job's record */
#define LIMIT_NOTES 64u          /* lines of history kept in a job's record */
#define LIMIT_INLINE_BYTES 1024u /* payloads up to this sit in the job's record */

/* The broker. */
#define LIMIT_JOBS_QUEUED 1000000u
#define LIMIT_WORKERS 256u
#define LIMIT_CLIENTS 4096u
#define LIMIT_SUBSCRIBERS 4096u
#define LIMIT_PEER_WATCHES 256u /* waits and event streams of one client connection */
#define LIMIT_STREAMS 256u      /* subscriptions to ended jobs */
#define LIMIT_PEER_STREAMS 16u  /* of one client connection */
#define LIMIT_LIST_ROWS 500u
#define LIMIT_UPLOADS 256u        /* that are not submitted yet */
#define LIMIT_TENANT_UPLOADS 192u /* of one tenant */
#define LIMIT_PEER_UPLOADS 16u    /* that one client connection began or wrote last */
#define LIMIT_UPLOAD_NAME_BYTES 26u
#define LIMIT_DEAD_PAGE 256u /* dead letters requeued or dropped by one request */
#define LIMIT_TENANTS 1024u
#define LIMIT_TENANT_SOURCES 128u /* that something is known of */
#define LIMIT_PEER_KEYS 1024u     /* that a broker lets in */

/* A worker. */
#define LIMIT_SPAN_JOBS 64u /* leases one worker process holds at a time */
#define LIMIT_ARENA_BYTES (256u * 1024u * 1024u)
#define LIMIT_TEXT_BYTES (768u * 1024u) /* one text field of a job */
#define LIMIT_TEXTS 256u                /* texts in one text.embed job */

#define LIMIT_PAGES_QUEUED 1024u /* saves of KV pages that wait for the disk */

/* Part images and device logs. */
#define LIMIT_IMAGE_PIXELS (25u * 1024u * 1024u) /* stored in one image file, before any scaling */
#define LIMIT_IMAGE_SIDE 16384u
#define LIMIT_RECIPE_BYTES (64u * 1024u)
#define LIMIT_REFERENCE_BYTES (32u * 1024u * 1024u) /* a recipe's own, read from its folder */
#define LIMIT_DEVLOG_LINES 65536u
#define LIMIT_DEVLOG_LINE_BYTES 4096u /* of a line that is kept; the rest of it is cut */
#define LIMIT_DEVLOG_TEMPLATES 1024u
#define LIMIT_DEVLOG_FEATURES 256u

/* Documents, and the helper process that reads one (workers/encode/extract.h). */
#define LIMIT_EXTRACT_DOCUMENT_BYTES (256u * 1024u * 1024u)
#define LIMIT_EXTRACT_PAGES 5000u     /* that are read; those beyond are failed, with the reason */
#define LIMIT_EXTRACT_PAGES_IN 65536u /* a document that has more is refused */
#define LIMIT_EXTRACT_OUTPUT_BYTES (96u * 1024u * 1024u) /* text and boxes: 17 bytes a letter */
#define LIMIT_EXTRACT_MEMORY_BYTES (1024u * 1024u * 1024u)
#define LIMIT_EXTRACT_CPU_S 60u
#define LIMIT_EXTRACT_WALL_MS 120000u
#define LIMIT_EXTRACT_PAGE_MS 20000u
#define LIMIT_EXTRACT_RESTARTS 3u /* helpers after the first, for one document */

#endif
