/* text.h: UTF-8, text that is safe to print on a terminal, and numbers for people. Depends on libc
 * alone. */
#ifndef CRIA_BASE_TEXT_H
#define CRIA_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed UTF-8 character at text (Unicode 15, table 3-7), of which n are
 * readable; 0 when there is none. */
size_t utf8_length(const char *text, size_t n);
/* Code point of a well-formed character of `length` bytes. */
uint32_t utf8_decode(const char *text, size_t length);
/* False for control characters (C0, DEL and C1), line and paragraph separators, byte order marks.
 */
bool utf8_is_printable(uint32_t code);

/* Is all of it printable UTF-8 on one line? */
bool text_is_printable(const char *text, size_t len);
/* Replaces what is not printable by '?', in place, so that text from a file or a file's name cannot
 * send a terminal escape sequences. '\n' and '\t' stay when keep_lines is set. */
void text_make_printable(char *text, bool keep_lines);

bool text_starts_with(const char *text, const char *start);
bool text_ends_with(const char *text, const char *end);

typedef struct {
    char text[16];
} NumberText;
/* Three digits of a number >= 0 and a letter, with `space` between them: "0.50", "950", "69.2k",
 * "1.23M"; B for 1e9, T for 1e12. */
NumberText number_text(double x, const char *space);

/* Edit distance of two names (insert, delete, replace), for "did you mean"; 1 where one word begins
 * like the other. Names over 64 bytes are 64 apart. */
int text_distance(const char *a, const char *b);

#endif
