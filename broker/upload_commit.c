/* What the store thread does for uploads, as part of its transactions (commit.c). */
#include "base/err.h"
#include "broker/commit.h"

/* The disk may know more than the loop: a flush that failed may have reached it all the same. */
static int append(struct store_write *w, struct commit_op *op) {
    struct upload_record now;
    int e = uploads_get(store_write_view(w), op->upload.id, &now);
    op->behind = e == -ENOENT || (e == 0 && now.have != op->offset);
    if (e == -ENOENT) {
        op->upload.bytes = 0;
        return 0;
    }
    if (e == 0 && !op->behind) e = uploads_append(w, &now, op->parts[0]);
    op->upload.have = now.have;
    op->upload.have_crc = now.have_crc;
    return e;
}

/* Is there a job by now? A submit that is repeated asks so. */
static int look(struct store_write *w, struct commit_op *op) {
    struct job_record r;
    int e = jobs_get(store_write_view(w), op->upload.id, &r, &op->arena);
    if (e == -ENOENT) return 0;
    if (e || !bytes_eq(r.tenant, op->record.tenant)) return e;
    op->existing = r.id;
    op->conflict = !bytes_eq(r.kind, op->record.kind);
    op->existing_state = r.state;
    op->existing_seed = r.seed;
    return 0;
}

int upload_apply(struct store_write *w, struct commit_op *op) {
    if (op->type == COMMIT_UPLOAD) return uploads_add(w, &op->upload);
    if (op->type == COMMIT_CHUNK) return append(w, op);
    if (op->type == COMMIT_LOOK) return look(w, op);
    if (op->type == COMMIT_ADD && !op->existing) return uploads_take(w, op->upload.id);
    /* Dropped, or not needed: the job of its key has a body already. */
    int e = uploads_del(w, op->upload.id);
    return e == -ENOENT ? 0 : e;
}

int upload_restore(struct store_write *w, struct commit_op *op) {
    struct job_record r;
    struct upload_record u;
    int e = jobs_get(store_write_view(w), op->upload.id, &r, &op->arena);
    if (e == 0) {
        e = uploads_add(w, &op->upload); /* first: it names the bytes, so that they stay */
        return e ? e : jobs_del(w, op->upload.id);
    }
    if (e == -ENOENT) e = uploads_get(store_write_view(w), op->upload.id, &u);
    if (e != -ENOENT) return e;
    op->upload.bytes = 0;
    return 0;
}
