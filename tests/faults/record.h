/* record.h - the log of what a broker asked of its disk and of what its clients were told.
 *
 * record.c, preloaded into the broker, appends a record for each change of a file below a folder,
 * when the change is made; a client appends what it was told, when it hears it. All append to one
 * file opened with O_APPEND, so that the order of the records is the order of the events.
 * replay.c reads it.
 *
 * A record is a head of 24 bytes (u32 type, u32 path bytes, u64 number, u64 data bytes; little
 * endian, as everywhere on the machines that this runs on), the path, and the data.
 *
 * Units: bytes.  Owner, memory, errors, threads: none, these are names. */
#ifndef PENSTOCK_TESTS_FAULTS_RECORD_H
#define PENSTOCK_TESTS_FAULTS_RECORD_H

#define RECORD_HEAD_BYTES 24u

enum record_type {
    RECORD_FILE = 1, /* made: path */
    RECORD_FOLDER,   /* made: path */
    RECORD_RENAME,   /* path, its new path as data */
    RECORD_UNLINK,   /* path */
    RECORD_WRITE,    /* data at number; on its own it is not on disk yet */
    RECORD_THROUGH,  /* the same through an O_DSYNC descriptor: this data is, and no other */
    RECORD_SIZE,     /* the file has number bytes */
    RECORD_FLUSH,    /* everything written to this file, or every name in this folder, is on disk */
    RECORD_STRANGE,  /* something that the replay cannot imitate; data says what */
    RECORD_ACCEPTED, /* a client was told; path: the job's id, data: its body */
    RECORD_ENDED,    /* a client was told; path: the job's id, data: state, NUL, result */
    RECORD_TYPES
};

#endif
