/* pages.c - fuzzes the cache of KV pages: bytes of its data file are changed, and what it then
 * gives is right or nothing; and the decoder of a page's value by itself.
 *
 * An input is a value of a page, and then, of four bytes each, a place in the file and a byte that
 * is XORed there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "store/pages.h"

enum { T = 16, DATA = 512, PAGES = 60, CAP = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char dir[64], path[256];
static struct page_key keys[PAGES + 1];
static uint32_t tokens[PAGES * T];
static uint8_t page[PAGES][DATA];
static const void *pages[PAGES];
static void *sound;
static size_t sound_bytes;

static void need(bool ok) {
    if (!ok) abort();
}

static struct pages *open_pages(void) {
    struct pages_group_config g = {.name = "g", .data_bytes = DATA, .cap_bytes = CAP};
    struct pages_config c = {.dir = dir,
                             .about = "fuzz",
                             .model = {.model = bytes_str("m"), .page_tokens = T, .layout = 1},
                             .groups = &g,
                             .n_groups = 1};
    struct pages *p;
    char err[256];
    need(pages_open(&p, &c, err, sizeof err) == 0);
    return p;
}

static void store(struct pages *p, uint32_t n) {
    struct pages_save s = {.pages = n, .keys = keys, .tokens = tokens, .data = pages}, *one = &s;
    pages_write(p, &one, 1);
}

static void start(void) {
    struct page_model m = {.model = bytes_str("m"), .page_tokens = T, .layout = 1};
    char fingerprint[PAGE_FINGERPRINT_CHARS], err[256];
    strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/fuzz-XXXXXX" : "/tmp/fuzz-XXXXXX");
    need(mkdtemp(dir) != NULL);
    page_root_public(&keys[0], &m, (struct bytes){NULL, 0});
    for (uint32_t i = 0; i < PAGES * T; i++) tokens[i] = i * 7;
    page_chain(keys, tokens, PAGES, T);
    for (uint32_t i = 0; i < PAGES; i++) {
        memset(page[i], (int)i + 1, DATA);
        pages[i] = page[i];
    }
    struct pages *p = open_pages();
    store(p, PAGES / 2);
    store(p, PAGES);
    pages_close(p);
    page_fingerprint(&m, fingerprint);
    snprintf(path, sizeof path, "%s/%s/g/data.mdb", dir, fingerprint);
    need(file_read(path, 1u << 24, &sound, &sound_bytes, err, sizeof err) == 0);
}

static void read_all(struct pages *p) {
    struct pages_read r;
    struct pages_hit hit;
    if (pages_read_begin(p, 0, &r) != 0) return;
    need(pages_find(&r, 0, keys, PAGES, &hit) == 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        struct bytes data;
        if (pages_get(&r, 0, 0, keys, i, tokens, &data) == 0)
            need(data.len == DATA && memcmp(data.data, page[i], DATA) == 0);
    }
    pages_read_end(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct page_shape shape = {DATA, T, 1, 0};
    struct bytes content;
    if (!sound) start();
    if (page_value_open(bytes_of(data, bytes), &shape, &keys[1], &keys[0], tokens, &content) == 0)
        need(content.len == DATA);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    need(fd >= 0 && write(fd, sound, sound_bytes) == (ssize_t)sound_bytes);
    for (; bytes >= 4; data += 4, bytes -= 4) {
        size_t at = ((size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16) % sound_bytes;
        uint8_t byte = ((uint8_t *)sound)[at] ^ data[3];
        need(pwrite(fd, &byte, 1, (off_t)at) == 1);
    }
    close(fd);
    struct pages *p = open_pages();
    read_all(p);
    store(p, PAGES / 3);
    store(p, PAGES);
    read_all(p);
    pages_close(p);
    return 0;
}
