/* table.h: what a benchmark found, a row at a time: aligned columns for people, or one JSON object
 * a line. Only rank 0 prints. */
#ifndef CRIA_BENCH_TABLE_H
#define CRIA_BENCH_TABLE_H

#include "base/base.h"
#include "bench/baseline.h"

typedef struct {
    const char *key, *title; /* in JSON; for people */
    int width;
    enum { TABLE_TEXT, TABLE_COUNT, TABLE_RATE } kind; /* RATE: with four digits */
} TableColumn;

typedef struct {
    const char *text; /* of a text column */
    double number;    /* of the others; NaN: not known */
} TableCell;

typedef struct {
    const TableColumn *columns;
    int n;
    bool json;
    const char *members; /* JSON members that start every row */
    Baseline *baseline;  /* every row is compared with it; NULL: none */
} Table;

#define CELL_TEXT(x)   ((TableCell){.text = (x)})
#define CELL_NUMBER(x) ((TableCell){.number = (double)(x)})

/* The titles, unless it is JSON. */
void table_begin(const Table *t);
/* t->n cells */
void table_row(const Table *t, const TableCell *cells);

#endif
