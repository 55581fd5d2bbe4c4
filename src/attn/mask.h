/* mask.h: which (query, key) pairs of a stream of S tokens may attend: a list of disjoint bands.
 * A micro-batch of B sequences is one stream with a block (or several documents) per sequence. */
#ifndef CRIA_ATTN_MASK_H
#define CRIA_ATTN_MASK_H

#include "attn/band.h"
#include "attn/range.h"
#include "config/config.h"

typedef struct {
    int64_t S;   /* tokens in the stream, at most BAND_MAX_TOKENS */
    Band *bands; /* shrunk, sorted by (q_begin, k_begin), no pair in two of them */
    int64_t n;
    int32_t *reach; /* reach[i] = max q_end of bands[0..i]: finds the bands of a row by bisection */
} Mask;

/* What keys and command lines say of a mask. */
typedef struct {
    MaskKind kind;
    int64_t window;     /* MASK_CAUSAL, MASK_DOCUMENT: as mask_documents(); 0 = no limit */
    int64_t prefix;     /* MASK_PREFIX_LM: as mask_prefix_lm() */
    const Mask *slices; /* MASK_SLICES: the mask of one sequence; borrowed */
} MaskSpec;

/* Every constructor fills *out (mask_free releases it). Those that return a Status check what they
 * are given and fail with ERR_USER; *out is then empty. T, the tokens of a sequence, divides S. */

/* data.mask and its keys; slices: of data.mask_file. */
MaskSpec mask_spec(const Config *c, const Mask *slices);
/* Any of the masks below over a micro-batch of S / T sequences. doc_begin: for MASK_DOCUMENT. */
Status mask_build(Mask *out, const MaskSpec *spec, int64_t S, int64_t T, const int32_t *doc_begin,
                  int64_t n_docs);

/* Causal documents: doc_begin[0] = 0 and ascending; document i ends where i + 1 begins, the last
 * one at S. A document never crosses a sequence: the caller lists every sequence start as well.
 * window > 0: a token sees at most that many previous tokens of its document; 0: all of them. */
Status mask_documents(Mask *out, int64_t S, const int32_t *doc_begin, int64_t n_docs,
                      int64_t window);
/* S / T sequences, each causal (window as above), or each full. */
Status mask_causal(Mask *out, int64_t S, int64_t T, int64_t window);
Status mask_full(Mask *out, int64_t S, int64_t T);
/* Causal sequences whose first `prefix` tokens are seen by all tokens of the sequence. */
Status mask_prefix_lm(Mask *out, int64_t S, int64_t T, int64_t prefix);
/* Any bands (shrunk or not, in any order; copied). Fails when one leaves [0, S) or a pair is
 * covered twice. */
Status mask_bands(Mask *out, int64_t S, const Band *bands, int64_t n);
/* Slices as text, one a line: `q_begin q_end k_begin k_end TYPE`, TYPE a slice_type_names entry or
 * F, C, INV, BI; # starts a comment. S = 0: the largest end. Errors name file:line. */
Status mask_parse(Mask *out, const char *name, const char *text, size_t len, int64_t S);
/* From a file of at most 64 MiB; see file_read_all. */
Status mask_load(Mask *out, const char *path, int64_t S);
void mask_free(Mask *m);
void mask_copy(Mask *out, const Mask *m);

/* Are the bands disjoint? If not, *first < *second are the indices of an offending pair: the least
 * second one, with the least first one. A sweep over rows: O(n log n + pairs that share a row). */
bool mask_check(const Band *bands, int64_t n, int64_t *first, int64_t *second);

int64_t mask_area(const Mask *m);

/* The bands cut to some rows, without those that are empty then:
 *   for (MaskRows at = mask_rows(m, rows); mask_next(&at, &cut);) ... */
typedef struct {
    const Mask *mask;
    Range rows;
    int64_t next;
} MaskRows;
MaskRows mask_rows(const Mask *m, Range rows);
bool mask_next(MaskRows *at, Band *cut);

/* Appends the keys that rows [rows.begin, rows.end) see, one range per band: not normal yet. */
void mask_keys(const Mask *m, Range rows, RangeList *out);

/* What a mask amounts to, for dispatch: MASK_FULL or MASK_CAUSAL when all sequences are alike, with
 * one band each of this form (*window: with an edge on both sides), else MASK_SLICES. *T: tokens of
 * such a sequence; S for MASK_SLICES. */
MaskKind mask_form(const Mask *m, int64_t *T, bool *window);

/* 64 bits over S and every band; equal masks have equal hashes on every machine. */
uint64_t mask_hash(const Mask *m);
/* Continues a hash over n words; start from 0. Also hashes plans. */
uint64_t hash_words(uint64_t hash, const int32_t *words, int64_t n);

#endif
