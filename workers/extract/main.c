/* main.c - penstock-extract: one document in, its text with positions out.
 *
 * Disposable: it reads a document from standard input, shuts itself in (sandbox.h), and writes
 * frames (frames.h) until it is done or dead. This program is linked with Poppler and conveyed
 * under the GNU General Public License, version 3. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/version.h"
#include "workers/extract/pdf.h"
#include "workers/extract/sandbox.h"
#include "workers/extract/text.h"

static const char help[] =
    "usage: penstock-extract [OPTION]... <DOCUMENT | READER\n"
    "\n"
    "Reads one document, PDF or plain text, and writes its text page by page with a box for every\n"
    "character, in the binary frames of workers/extract/frames.h. The worker starts it; standard\n"
    "output has to be a pipe. It gives up files, network and processes before it reads.\n"
    "\n"
    "  --format=auto|pdf|txt  auto tells a PDF by its first bytes\n"
    "  --first=N --last=N     pages, from 1; all\n"
    "  --memory=BYTES         address space; 1 GiB\n"
    "  --cpu=SECONDS          processor time; 60\n"
    "  --parent=PID           end at once unless this process started it\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 when all that could be said was said, 1 after a death, 2 for a usage error.\n"
    "It is linked with Poppler and conveyed under the GNU General Public License, version 3.\n";

struct options {
    const char *format;
    uint64_t first, last, memory_bytes, cpu_s, parent;
};

static void usage(const char *argument) {
    fprintf(stderr, "penstock-extract: what is %s? see --help\n", argument);
    exit(2);
}

static bool take_number(const char *argument, const char *name, uint64_t *out) {
    size_t len = strlen(name);
    if (strncmp(argument, name, len) != 0) return false;
    char *end;
    errno = 0;
    *out = strtoull(argument + len, &end, 10);
    if (end == argument + len || *end || errno || argument[len] == '-') usage(argument);
    return true;
}

static struct options parse(int argc, char **argv) {
    struct options o = {.format = "auto",
                        .first = 1,
                        .last = LIMIT_EXTRACT_PAGES_IN,
                        .memory_bytes = LIMIT_EXTRACT_MEMORY_BYTES,
                        .cpu_s = LIMIT_EXTRACT_CPU_S};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--help") == 0 || strcmp(a, "--version") == 0) {
            fputs(a[2] == 'h' ? help : "penstock-extract " PENSTOCK_VERSION "\n", stdout);
            exit(0);
        }
        if (strncmp(a, "--format=", 9) == 0)
            o.format = a + 9;
        else if (!take_number(a, "--first=", &o.first) && !take_number(a, "--last=", &o.last) &&
                 !take_number(a, "--memory=", &o.memory_bytes) &&
                 !take_number(a, "--cpu=", &o.cpu_s) && !take_number(a, "--parent=", &o.parent))
            usage(a);
    }
    if (strcmp(o.format, "auto") != 0 && strcmp(o.format, "pdf") != 0 &&
        strcmp(o.format, "txt") != 0)
        usage(o.format);
    if (o.first < 1 || o.first > LIMIT_EXTRACT_PAGES_IN) usage("that page");
    if (o.last > LIMIT_EXTRACT_PAGES_IN) o.last = LIMIT_EXTRACT_PAGES_IN;
    struct stat st;
    if (fstat(STDOUT_FILENO, &st) != 0 || !S_ISFIFO(st.st_mode)) {
        fputs("penstock-extract: standard output has to be a pipe; see --help\n", stderr);
        exit(2);
    }
    return o;
}

/* A file is mapped, anything else read; false when it cannot be, or is too large. */
static bool read_document(struct output *o, struct bytes *out) {
    struct stat st;
    static struct buf all = {.max_bytes = LIMIT_EXTRACT_DOCUMENT_BYTES};
    if (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
        st.st_size <= LIMIT_EXTRACT_DOCUMENT_BYTES) {
        void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, STDIN_FILENO, 0);
        *out = bytes_of(at, (size_t)st.st_size);
        if (at == MAP_FAILED) output_death(FRAME_DEATH_MEMORY, "");
        return at != MAP_FAILED;
    }
    ssize_t n = 1;
    while (n > 0 && all.len <= LIMIT_EXTRACT_DOCUMENT_BYTES - 65536) {
        size_t len = all.len;
        void *at = buf_extend(&all, 65536);
        n = at ? read(STDIN_FILENO, at, 65536) : -1;
        all.len = len + (n > 0 ? (size_t)n : 0);
    }
    *out = buf_bytes(&all);
    if (n == 0 && all.len > 0) return true;
    if (n > 0)
        output_bad(o, FRAME_BAD_LIMIT, "the document is too large");
    else if (n < 0)
        output_bad(o, FRAME_BAD_SYSTEM, "the document cannot be read from standard input");
    else
        output_bad(o, FRAME_BAD_DOCUMENT, "the document is empty");
    return false;
}

int main(int argc, char **argv) {
    char err[256] = "";
    struct output out = {0};
    struct bytes document;
    struct options o = parse(argc, argv);
    close_range(STDERR_FILENO + 1, ~0u, 0);
    text_init();
    int rc = sandbox_limit(o.memory_bytes, (uint32_t)o.cpu_s, (pid_t)o.parent, err, sizeof err);
    if (rc == 0) rc = sandbox_enter(PDF_DATA_FOLDER, err, sizeof err);
    if (rc < 0) {
        output_bad(&out, FRAME_BAD_SYSTEM, err);
        _exit(1);
    }
    if (read_document(&out, &document)) {
        bool pdf =
            strcmp(o.format, "pdf") == 0 || (strcmp(o.format, "auto") == 0 && pdf_is(document));
        if (pdf)
            pdf_read(&out, document, (uint32_t)o.first, (uint32_t)o.last);
        else
            text_read(&out, document);
    }
    /* What the libraries would do at their end is of no use, and not all of it is allowed. */
    _exit(0);
}
