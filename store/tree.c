#include "store/tree.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"

#define MAGIC 0xBEEFC0DEu
#define VERSION 1u
#define PAGE_BYTES_MIN 512u
#define PAGE_BYTES_MAX 32768u
#define HEAD_BYTES 16u /* of a page: number u64, pad u16, flags u16, lower u16, upper u16 */
#define NODE_BYTES 8u  /* low u16, high u16, flags u16, key bytes u16; then key, then value */
#define TABLE_BYTES 48u
#define META_BYTES (24u + 2 * TABLE_BYTES + 16u)
#define KEY_BYTES_MAX 511u
#define DEPTH_MAX 32u
#define NO_PAGE UINT64_MAX
#define MAP_BYTES_MAX (1ull << 46)

enum { BRANCH = 1, LEAF = 2, OVERFLOW = 4, META = 8 };       /* a page's flags */
enum { NODE_BIG = 1, NODE_TABLE = 2 };                       /* a node's */
enum { FREE_FLAGS = 8, FREE_KEY_BYTES = 8 };                 /* keys are numbers of this machine */
enum tree_kind { OF_FREE, OF_NAMES, OF_VALUES, TREE_KINDS }; /* what the leaves hold */

struct table {
    uint32_t flags;
    uint64_t depth, branches, leaves, overflows, entries, root;
};
struct meta {
    uint64_t last_page, txn, map_bytes;
    uint32_t page_bytes;
    struct table free, names;
};
struct check {
    int fd;
    uint32_t page_bytes;
    uint64_t pages, txn; /* pages: one more than the last that the commit knows of */
    uint8_t *used;       /* a bit a page: of a tree, or of a value */
    uint8_t *is_free;    /* a bit a page: listed for reuse */
    uint8_t *page[DEPTH_MAX];
    uint16_t *taken; /* scratch: a bit for two bytes of a page */
    uint64_t *list;  /* scratch: a record of the list of free pages */
    size_t list_cap;
    const char *fault; /* static text */
    uint64_t fault_page;
};
struct walk {
    enum tree_kind kind;
    uint64_t branches, leaves, overflows, entries;
    uint32_t depth;
};

static uint16_t u16_at(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static uint32_t u32_at(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static uint64_t u64_at(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int bad(struct check *c, uint64_t page, const char *fault) {
    c->fault = fault;
    c->fault_page = page;
    return ERR_CORRUPT;
}

static int read_at(const struct check *c, void *out, size_t bytes, uint64_t at) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(c->fd, (uint8_t *)out + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return ERR_CORRUPT;
        done += (size_t)n;
    }
    return 0;
}

/* Marks n pages from `first` on; false when one lies outside, or is marked already. */
static bool take(const struct check *c, uint8_t *bits, uint64_t first, uint64_t n) {
    if (first < 2 || n == 0 || first >= c->pages || n > c->pages - first) return false;
    for (uint64_t p = first; p < first + n; p++) {
        if (bits[p / 8] >> (p % 8) & 1) return false;
        bits[p / 8] |= (uint8_t)(1u << (p % 8));
    }
    return true;
}

/* ---- the two metas ---- */

static struct table table_at(const uint8_t *p) {
    return (struct table){.flags = u16_at(p + 4),
                          .depth = u16_at(p + 6),
                          .branches = u64_at(p + 8),
                          .leaves = u64_at(p + 16),
                          .overflows = u64_at(p + 24),
                          .entries = u64_at(p + 32),
                          .root = u64_at(p + 40)};
}

static int read_meta(struct check *c, uint64_t slot, uint64_t at, struct meta *out) {
    uint8_t b[HEAD_BYTES + META_BYTES];
    int code = read_at(c, b, sizeof b, at);
    if (code != 0) return code == ERR_CORRUPT ? bad(c, slot, "its metas are cut off") : code;
    const uint8_t *m = b + HEAD_BYTES;
    if (u64_at(b) != slot || u16_at(b + 10) != META || u32_at(m) != MAGIC)
        return bad(c, slot, "it has no meta page there");
    if (u32_at(m + 4) != VERSION) return ERR_VERSION;
    *out = (struct meta){.map_bytes = u64_at(m + 16),
                         .page_bytes = u32_at(m + 24),
                         .free = table_at(m + 24),
                         .names = table_at(m + 24 + TABLE_BYTES),
                         .last_page = u64_at(m + 24 + 2 * TABLE_BYTES),
                         .txn = u64_at(m + 32 + 2 * TABLE_BYTES)};
    uint32_t size = out->page_bytes;
    if (size < PAGE_BYTES_MIN || size > PAGE_BYTES_MAX || (size & (size - 1)) != 0)
        return bad(c, slot, "its page size cannot be");
    if (out->map_bytes > MAP_BYTES_MAX || out->last_page >= MAP_BYTES_MAX / size)
        return bad(c, slot, "its size cannot be");
    if (out->free.flags != FREE_FLAGS || out->names.flags != 0)
        return bad(c, slot, "it is of another kind");
    return 0;
}

static int read_metas(struct check *c, struct meta *newest) {
    struct meta m[2];
    int code = read_meta(c, 0, 0, &m[0]);
    if (code == 0) code = read_meta(c, 1, m[0].page_bytes, &m[1]);
    if (code != 0) return code;
    if (m[1].page_bytes != m[0].page_bytes) return bad(c, 1, "its page sizes differ");
    uint64_t slot = m[1].txn > m[0].txn;
    *newest = m[slot];
    struct stat st;
    if (fstat(c->fd, &st) != 0) return -errno;
    c->page_bytes = newest->page_bytes;
    c->pages = newest->last_page + 1;
    c->txn = newest->txn;
    if (c->txn != 0 && (c->txn & 1) != slot) return bad(c, slot, "its commit is in the wrong meta");
    if (c->pages < 2 || newest->map_bytes / c->page_bytes < c->pages)
        return bad(c, slot, "its map is smaller than its data");
    if ((uint64_t)st.st_size / c->page_bytes < c->pages) return bad(c, slot, "it was cut off");
    return 0;
}

/* ---- trees ---- */

struct node {
    struct bytes key;
    uint64_t child;      /* of a branch */
    uint16_t flags;      /* of a leaf */
    uint64_t bytes;      /* of a leaf: its value's */
    const uint8_t *data; /* of a leaf: the value, or with NODE_BIG its first page's number */
};

/* Takes node i of a page whose nodes begin at `upper`; adds to *sum what it occupies. */
static bool node_at(const struct check *c, const uint8_t *page, bool leaf, uint32_t i,
                    struct node *out, uint32_t *sum) {
    uint32_t at = u16_at(page + HEAD_BYTES + 2 * i), upper = u16_at(page + 14);
    if (at < upper || at % 2 != 0 || at + NODE_BYTES > c->page_bytes) return false;
    const uint8_t *n = page + at;
    uint64_t low = u16_at(n) | (uint64_t)u16_at(n + 2) << 16;
    uint64_t key_bytes = u16_at(n + 6), room = c->page_bytes - at - NODE_BYTES;
    *out = (struct node){.key = bytes_of(n + NODE_BYTES, key_bytes),
                         .child = low | (uint64_t)u16_at(n + 4) << 32,
                         .flags = u16_at(n + 4),
                         .bytes = low,
                         .data = n + NODE_BYTES + key_bytes};
    uint64_t inside = !leaf ? 0 : out->flags & NODE_BIG ? sizeof(uint64_t) : low;
    if (key_bytes > KEY_BYTES_MAX || key_bytes + inside > room) return false;
    uint32_t size = (uint32_t)(NODE_BYTES + key_bytes + inside + 1) & ~1u;
    if (at + size > c->page_bytes) return false;
    for (uint32_t b = at / 2; b < (at + size) / 2; b++) {
        uint16_t bit = (uint16_t)(1u << (b % 16));
        if (c->taken[b / 16] & bit) return false;
        c->taken[b / 16] |= bit;
    }
    *sum += size;
    return true;
}

static int order(enum tree_kind kind, struct bytes a, struct bytes b) {
    if (kind == OF_FREE) {
        uint64_t x = u64_at(a.data), y = u64_at(b.data);
        return (x > y) - (x < y);
    }
    size_t least = a.len < b.len ? a.len : b.len;
    int d = least ? memcmp(a.data, b.data, least) : 0;
    return d != 0 ? d : (a.len > b.len) - (a.len < b.len);
}

static int check_table(struct check *c, enum tree_kind kind, const struct table *t);

/* A record of the list of free pages: a count, then their numbers, falling. */
static int check_free(struct check *c, uint64_t page, const struct node *n, bool big) {
    const uint8_t *data = n->data;
    if (n->bytes < sizeof(uint64_t) || n->bytes % sizeof(uint64_t) != 0)
        return bad(c, page, "a list of free pages has no whole length");
    if (u64_at(n->key.data) > c->txn) return bad(c, page, "a list of free pages is from later on");
    if (big) {
        if (n->bytes > c->list_cap) {
            uint64_t *list = realloc(c->list, n->bytes);
            if (!list) return -ENOMEM;
            c->list = list;
            c->list_cap = n->bytes;
        }
        int code = read_at(c, c->list, n->bytes, u64_at(data) * c->page_bytes + HEAD_BYTES);
        if (code != 0) return code;
        data = (const uint8_t *)c->list;
    }
    uint64_t count = u64_at(data), above = c->pages;
    if (count > n->bytes / sizeof(uint64_t) - 1)
        return bad(c, page, "a list of free pages is cut off");
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t p = u64_at(data + i * sizeof(uint64_t));
        if (p >= above || !take(c, c->is_free, p, 1))
            return bad(c, page, "a list of free pages has one twice or out of order");
        above = p;
    }
    return 0;
}

static int check_entry(struct check *c, struct walk *w, uint64_t page, const struct node *n) {
    bool big = n->flags & NODE_BIG;
    w->entries++;
    if (n->key.len == 0 || n->flags & ~(NODE_BIG | NODE_TABLE) ||
        ((n->flags & NODE_TABLE) != 0) != (w->kind == OF_NAMES))
        return bad(c, page, "it has a node of another kind");
    if (big) {
        uint64_t run = (HEAD_BYTES - 1 + n->bytes) / c->page_bytes + 1;
        if (!take(c, c->used, u64_at(n->data), run))
            return bad(c, page, "a value's pages are used twice or lie outside");
        w->overflows += run;
    }
    if (w->kind == OF_FREE) return check_free(c, page, n, big);
    if (w->kind != OF_NAMES) return 0;
    if (big || n->bytes != TABLE_BYTES) return bad(c, page, "it has a table that is none");
    struct table t = table_at(n->data);
    return check_table(c, OF_VALUES, &t);
}

/* Page number `page`, all keys of which lie from low on and below high (absent: no bound). */
static int check_page(struct check *c, struct walk *w, uint64_t page, uint32_t level,
                      struct bytes low, struct bytes high) {
    uint8_t *p = c->page[level + (w->kind == OF_VALUES ? DEPTH_MAX / 2 : 0)];
    if (!take(c, c->used, page, 1)) return bad(c, page, "it is used twice or lies outside");
    int code = read_at(c, p, c->page_bytes, page * c->page_bytes);
    if (code != 0) return code;
    uint32_t flags = u16_at(p + 10), lower = u16_at(p + 12), upper = u16_at(p + 14), sum = 0;
    bool leaf = flags == LEAF;
    if (u64_at(p) != page || flags != (level + 1 == w->depth ? LEAF : BRANCH))
        return bad(c, page, "it is another page");
    uint32_t least = leaf || w->kind == OF_FREE ? 1 : 2;
    uint32_t n = lower < HEAD_BYTES ? 0 : (lower - HEAD_BYTES) / 2;
    if (lower % 2 != 0 || upper < lower || upper > c->page_bytes || n < least)
        return bad(c, page, "its bounds cannot be");
    *(leaf ? &w->leaves : &w->branches) += 1;
    memset(c->taken, 0, c->page_bytes / 16);
    struct node node, next;
    for (uint32_t i = 0; i < n; i++) {
        if (!node_at(c, p, leaf, i, &node, &sum))
            return bad(c, page, "its nodes overlap or end outside");
        if (w->kind == OF_FREE && (leaf || i > 0) && node.key.len != FREE_KEY_BYTES)
            return bad(c, page, "a key is of another kind");
    }
    if (sum != c->page_bytes - upper) return bad(c, page, "its nodes have gaps");
    struct bytes before = low;
    for (uint32_t i = 0; code == 0 && i < n; i++) {
        memset(c->taken, 0, c->page_bytes / 16); /* node_at has proved them apart */
        node_at(c, p, leaf, i, &node, &sum);
        bool keyed = leaf || i > 0; /* the first key of a branch means nothing */
        if (keyed &&
            ((before.data && order(w->kind, before, node.key) > (leaf && i == 0 ? 0 : -1)) ||
             (high.data && order(w->kind, node.key, high) >= 0)))
            return bad(c, page, "its keys are out of order");
        if (leaf) {
            code = check_entry(c, w, page, &node);
        } else {
            struct bytes until = high;
            memset(c->taken, 0, c->page_bytes / 16);
            if (i + 1 < n && node_at(c, p, leaf, i + 1, &next, &sum)) until = next.key;
            code = check_page(c, w, node.child, level + 1, keyed ? node.key : low, until);
        }
        if (keyed) before = node.key;
    }
    return code;
}

static int check_table(struct check *c, enum tree_kind kind, const struct table *t) {
    struct walk w = {.kind = kind, .depth = (uint32_t)t->depth};
    uint64_t at = t->root == NO_PAGE ? 0 : t->root;
    if (kind == OF_VALUES && t->flags != 0) return bad(c, at, "a table is of another kind");
    if (t->depth > DEPTH_MAX / 2 || (t->depth == 0) != (t->root == NO_PAGE))
        return bad(c, at, "a table's depth cannot be");
    int code = t->depth == 0 ? 0
                             : check_page(c, &w, t->root, 0, (struct bytes){NULL, 0},
                                          (struct bytes){NULL, 0});
    if (code != 0) return code;
    if (w.branches != t->branches || w.leaves != t->leaves || w.overflows != t->overflows ||
        w.entries != t->entries)
        return bad(c, at, "a table has not what it says");
    return 0;
}

static int check_file(struct check *c) {
    struct meta m;
    int code = read_metas(c, &m);
    if (code != 0) return code;
    size_t map_bytes = (size_t)(c->pages / 8 + 1);
    c->used = calloc(1, map_bytes);
    c->is_free = calloc(1, map_bytes);
    c->taken = calloc(1, c->page_bytes / 16);
    for (uint32_t i = 0; i < DEPTH_MAX; i++) {
        c->page[i] = malloc(c->page_bytes);
        if (!c->page[i]) return -ENOMEM;
    }
    if (!c->used || !c->is_free || !c->taken) return -ENOMEM;
    code = check_table(c, OF_FREE, &m.free);
    if (code == 0) code = check_table(c, OF_NAMES, &m.names);
    for (uint64_t p = 2; code == 0 && p < c->pages; p++)
        if (c->used[p / 8] & c->is_free[p / 8] & 1u << (p % 8))
            code = bad(c, p, "it is in use and listed as free");
    return code;
}

int tree_check(const char *path, char *err, size_t err_bytes) {
    struct stat st;
    struct check c = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (c.fd < 0) return err_set(err, err_bytes, -errno, "%s: %s", path, strerror(errno));
    int code = fstat(c.fd, &st) != 0 ? -errno : st.st_size == 0 ? -ENOENT : check_file(&c);
    close(c.fd);
    for (uint32_t i = 0; i < DEPTH_MAX; i++) free(c.page[i]);
    free(c.used);
    free(c.is_free);
    free(c.taken);
    free(c.list);
    if (code == ERR_CORRUPT && c.fault)
        return err_set(err, err_bytes, code, "%s: page %llu: %s", path,
                       (unsigned long long)c.fault_page, c.fault);
    return code == 0 ? 0 : err_set(err, err_bytes, code, "%s: %s", path, err_text(code));
}
