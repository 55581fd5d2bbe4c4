/* base.h: what every module may use: Status with its error trail, always-on checks, checked
 * arithmetic, accounted allocation, and a growable string. Depends on libc and text.h alone. */
#ifndef CRIA_BASE_BASE_H
#define CRIA_BASE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Status ------------------------------------------------------------------------------
 * Every function that can fail returns a Status. The first failure records one message (what,
 * where, found, expected, what to do); callers pass the code up unchanged. The code decides the
 * exit status of the process. */
#define STATUS_LIST(X)                                                                             \
    X(OK, 0, "ok")                                                                                 \
    X(ERR_USER, 2, "a mistake in the input: config, data, command line")                           \
    X(ERR_ENV, 3, "the environment failed: disk, MPI, GPU, non-finite numbers")                    \
    X(ERR_STOPPED, 4, "asked to stop (signal or time limit); state was saved")

typedef enum {
#define X(name, exit_code, text) name,
    STATUS_LIST(X)
#undef X
} Status;

int status_exit_code(Status s);

/* Records the message for this thread and returns `code`. Later calls before status_clear()
 * replace the message only if none is recorded: the first error wins. */
Status status_fail(Status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__ /* which cannot look inside: a failure is not OK */
#define status_fail(code, ...) ((void)status_fail(code, __VA_ARGS__), code)
#endif

/* Context that only a caller knows: "PREFIX: " before the recorded message, or text behind it. */
void status_prefix(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void status_suffix(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

const char *status_message(void); /* "" when nothing is recorded; valid until the next call */
void status_clear(void);

/* For a failure that the caller recovers from: forgets its message, which would otherwise appear
 * under the next failure, and returns OK. Does nothing when `st` is OK. */
Status status_ignore(Status st);

/* Whether every rank has the recorded failure, as comm_agree() sees to. Belongs to the recorded
 * message: the next failure, or clearing, makes it false. */
void status_set_agreed(bool agreed);
bool status_is_agreed(void);

/* For structs of functions: gcc warns when one is initialized by position, because two neighbours
 * of one type could then be swapped unnoticed. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__cplusplus)
#define FIELDS_BY_NAME __attribute__((designated_init))
#else
#define FIELDS_BY_NAME
#endif

/* Return on failure / jump to a cleanup label on failure (needs a local `Status st`). */
#define CHECK(expr)                                                                                \
    do {                                                                                           \
        Status check_st_ = (expr);                                                                 \
        if (check_st_ != OK) return check_st_;                                                     \
    } while (0)
#define CHECK_GOTO(expr, label)                                                                    \
    do {                                                                                           \
        st = (expr);                                                                               \
        if (st != OK) goto label;                                                                  \
    } while (0)

/* A broken invariant is a bug: print file:line and abort, in every build. */
#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) base_bug(__FILE__, __LINE__, #cond);                                          \
    } while (0)
_Noreturn void base_bug(const char *file, int line, const char *what);

/* ---- arithmetic -------------------------------------------------------------------------- */
static inline int64_t i64_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t i64_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t round_up(int64_t a, int64_t b) {
    return ceil_div(a, b) * b;
}

/* a * b for non-negative operands; false (and *out untouched) when it does not fit. */
static inline bool checked_mul(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

/* ---- element types ----------------------------------------------------------------------- */
/* F16 and OTHER (any type that is not in this list, 0 bytes) occur in files only: nothing is
 * computed or communicated in them. */
#define DTYPE_LIST(X) /* name, as in safetensors, and bytes */                                     \
    X(F32, 4)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(F64, 8)                                                                                      \
    X(I64, 8)                                                                                      \
    X(I32, 4)                                                                                      \
    X(U8, 1)                                                                                       \
    X(F8_E4M3, 1)                                                                                  \
    X(F8_E5M2, 1)                                                                                  \
    X(F16, 2)                                                                                      \
    X(OTHER, 0)
#define X(name, bytes) DT_##name,
typedef enum { DTYPE_LIST(X) } Dtype;
#undef X

static inline int dtype_bytes(Dtype t) {
#define X(name, bytes) bytes,
    static const int sizes[] = {DTYPE_LIST(X)};
#undef X
    return sizes[t];
}

/* ---- host memory: never returns NULL; out of memory prints what was asked for and exits 3 -- */
void *mem_new(int64_t n, size_t size);             /* zeroed; n * size is checked */
void *mem_grow(void *ptr, int64_t n, size_t size); /* realloc; new part is not zeroed */
char *mem_strdup(const char *s);
char *mem_printable(const char *s); /* a copy on one line, safe to print on a terminal */
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define NEW(type, n) ((type *)mem_new((n), sizeof(type)))
/* Makes room for one more element in a growable array that holds n; all three are variables. The
 * new part is not zeroed. */
#define GROW(array, n, cap)                                                                        \
    do {                                                                                           \
        if ((n) < (cap)) break;                                                                    \
        (cap) = (cap) > 0 ? 2 * (cap) : 16;                                                        \
        (array) = mem_grow((array), (cap), sizeof *(array));                                       \
    } while (0)

/* ---- StrBuf: a growable, always terminated string ----------------------------------------- */
typedef struct {
    char *text; /* NULL until the first append */
    size_t len, cap;
} StrBuf;

void strbuf_printf(StrBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vprintf(StrBuf *b, const char *fmt, va_list ap);
void strbuf_append(StrBuf *b, const char *text, size_t len);
/* Quoted, control characters escaped, what is not UTF-8 as U+FFFD: JSON whatever the bytes are. */
void strbuf_json_string(StrBuf *b, const char *s);
/* A text from column `indent` on, in lines of at most 80, and a line break behind it. Starts a new
 * line where the last one already reaches that column. */
void strbuf_wrap(StrBuf *b, const char *text, int indent);
const char *strbuf_text(const StrBuf *b); /* "" when empty */
void strbuf_free(StrBuf *b);

/* ---- time -------------------------------------------------------------------------------- */
double time_now(void); /* seconds, monotonic */

#endif
