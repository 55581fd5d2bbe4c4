/* json.h: a strict pull reader of JSON (RFC 8259), for safetensors headers and Hugging Face
 * configs. The caller walks the text in order; no tree is built, so a hostile text costs no more
 * memory than its longest string. (libyaml does not serve here: it refuses surrogate pairs and keys
 * over 1,024 characters, needs time quadratic in the nesting depth, and accepts much that is not
 * JSON.)
 *
 *     json_object(&j);
 *     while (json_object_next(&j, &key)) { ...read or skip exactly one value...; free(key); }
 *
 * The first problem sticks in `error`; from then on every call returns false, 0 or NULL. */
#ifndef CRIA_BASE_JSON_H
#define CRIA_BASE_JSON_H

#include "base/base.h"

typedef struct {
    const char *text; /* need not be terminated */
    int64_t len, pos;
    const char *error; /* NULL, or what is wrong at byte `pos` */
    bool fresh;        /* just behind { or [: no comma before the next element */
} Json;

void json_start(Json *j, const char *text, int64_t len);
/* The first character of the next token, '\0' at the end of the text. */
char json_peek(Json *j);

bool json_object(Json *j); /* enters an object; false and an error when the value is not one */
/* True: *key (caller frees) was read and its value follows. False: the object ended, or an error.
 */
bool json_object_next(Json *j, char **key);
bool json_array(Json *j);
bool json_array_next(Json *j); /* true: an element follows */

char *json_string(Json *j);  /* UTF-8, without NUL characters; caller frees */
int64_t json_int(Json *j);   /* a number without fraction or exponent that fits */
double json_double(Json *j); /* any number of at most 63 characters */
bool json_bool(Json *j);
void json_skip(Json *j); /* any value, at most 64 levels deep */
void json_end(Json *j);  /* an error unless only white space is left */

/* Skips an object and notes in values[n] where its members of these names begin, for reading them
 * in another order than they come in: text NULL where one is absent or null. */
void json_members(Json *j, int n, const char *const *names, Json *values);
/* OK, or ERR_USER with the error and its place. */
Status json_status(const Json *j);

#endif
