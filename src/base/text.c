#include "base/text.h"

#include <stdio.h>
#include <string.h>

size_t utf8_length(const char *text, size_t n) {
    const unsigned char *u = (const unsigned char *)text;
    if (n == 0) return 0;
    size_t len = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (len == 0 || len > n || u[0] > 0xf4) return 0;
    for (size_t i = 1; i < len; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    bool overlong = (u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90);
    bool surrogate = u[0] == 0xed && u[1] >= 0xa0;
    bool beyond = u[0] == 0xf4 && u[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : len;
}

uint32_t utf8_decode(const char *text, size_t length) {
    const unsigned char *u = (const unsigned char *)text;
    uint32_t code = length == 1 ? u[0] : u[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) code = code << 6 | (u[i] & 0x3fu);
    return code;
}

bool utf8_is_printable(uint32_t c) {
    if (c < 0xa0) return c >= 0x20 && c < 0x7f;
    bool line_break = c == 0x2028 || c == 0x2029;
    bool not_text = c == 0xfeff || c == 0xfffe || c == 0xffff;
    return !line_break && !not_text;
}

bool text_is_printable(const char *text, size_t len) {
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_length(text + i, len - i);
        if (n == 0 || !utf8_is_printable(utf8_decode(text + i, n))) return false;
    }
    return true;
}

void text_make_printable(char *text, bool keep_lines) {
    char *out = text;
    size_t left = strlen(text);
    for (size_t n; left > 0; text += n, left -= n) {
        n = utf8_length(text, left);
        bool valid = n > 0 && utf8_is_printable(utf8_decode(text, n));
        if (n == 0) n = 1;
        if (valid || (keep_lines && (*text == '\n' || *text == '\t'))) {
            memmove(out, text, n);
            out += n;
        } else {
            *out++ = '?';
        }
    }
    *out = '\0';
}

bool text_starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

bool text_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

int text_distance(const char *a, const char *b) {
    enum { LONGEST = 64 };
    int na = (int)strlen(a), nb = (int)strlen(b), row[LONGEST + 1];
    if (na > LONGEST || nb > LONGEST) return LONGEST;
    int common = na < nb ? na : nb;
    bool words = strchr(a, '.') == NULL && strchr(b, '.') == NULL;
    if (words && na != nb && common >= 4 && strncmp(a, b, (size_t)common) == 0) return 1;
    for (int j = 0; j <= nb; j++) row[j] = j;
    for (int i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replace < other ? replace : other;
        }
    }
    return row[nb];
}

NumberText number_text(double x, const char *space) {
    static const char letters[] = "kMBT";
    NumberText n;
    int letter = -1;
    for (; x >= 999.5 && letter < 3; letter++) x /= 1000;
    int digits = letter < 0 && x == (int)x ? 0 : x < 9.995 ? 2 : x < 99.95 ? 1 : 0;
    if (letter < 0)
        snprintf(n.text, sizeof n.text, "%.*f", digits, x);
    else
        snprintf(n.text, sizeof n.text, "%.*f%s%c", digits, x, space, letters[letter]);
    return n;
}
