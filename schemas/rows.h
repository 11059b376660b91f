/* rows.h - what a row of msg.def or kinds.def becomes in a table of struct field.
 *
 * Included by msg.c and kinds.c only, inside which `row_struct` is the struct being described.
 *
 * Units, owner, memory, errors, threads: none; these are initializers. */
#ifndef PENSTOCK_SCHEMAS_ROWS_H
#define PENSTOCK_SCHEMAS_ROWS_H

#include <stddef.h>

#include "schemas/field.h"

#define REQ true, .one_of = false
#define OPT false, .one_of = false
#define ONE false, .one_of = true
#define ROW_HEAD(field, kind) .name = #field, .type = kind, .offset = offsetof(row_struct, field)

#define U64(field, need, least, most, otherwise, text)                                             \
    {ROW_HEAD(field, FIELD_U64), .required = need, .min = least, .max = most,                      \
     .def_u64 = otherwise,       .doc = text},
#define F64(field, need, least, most, otherwise, text)                                             \
    {ROW_HEAD(field, FIELD_F64), .required = need, .fmin = least, .fmax = most,                    \
     .def_f64 = otherwise,       .doc = text},
#define BOOL(field, otherwise, text)                                                               \
    {ROW_HEAD(field, FIELD_BOOL), .max = 1, .def_u64 = otherwise, .doc = text},
#define STR(field, need, least, most, words, text)                                                 \
    {ROW_HEAD(field, FIELD_STR), .required = need, .min = least, .max = most,                      \
     .choices = words,           .doc = text},
#define BIN(field, need, least, most, text)                                                        \
    {ROW_HEAD(field, FIELD_BIN), .required = need, .min = least, .max = most, .doc = text},
#define ID(field, need, text) {ROW_HEAD(field, FIELD_ID), .required = need, .doc = text},
#define STRS(field, need, least, most, each, text)                                                 \
    {ROW_HEAD(field, FIELD_STRS),                                                                  \
     .required = need,                                                                             \
     .min = least,                                                                                 \
     .max = most,                                                                                  \
     .item_max = each,                                                                             \
     .doc = text},
#define PACK(field, need, most, text)                                                              \
    {ROW_HEAD(field, FIELD_PACK), .required = need, .max = most, .doc = text},

#endif
