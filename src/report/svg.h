/* svg.h: the elements that pictures are made of. Lengths are pixels; colours are CSS. */
#ifndef CRIA_REPORT_SVG_H
#define CRIA_REPORT_SVG_H

#include "base/base.h"

#define SVG_INK   "#22262b"
#define SVG_FAINT "#6b7480"

typedef enum { SVG_START, SVG_MIDDLE, SVG_END } SvgAnchor; /* of text, at x */

/* A document with a white ground, in SVG_INK; svg_end() closes it. */
void svg_begin(StrBuf *out, int width, int height);
void svg_end(StrBuf *out);
/* What follows is drawn relative to x, y. */
void svg_group_begin(StrBuf *out, double x, double y);
void svg_group_end(StrBuf *out);

/* fill NULL: SVG_INK. Any text: it is escaped. */
void svg_text(StrBuf *out, double x, double y, SvgAnchor anchor, const char *fill, const char *fmt,
              ...) __attribute__((format(printf, 6, 7)));
void svg_rect(StrBuf *out, double x, double y, double width, double height, const char *fill);
/* d NULL or empty: nothing. */
void svg_path(StrBuf *out, const char *fill, double opacity, const char *d);
/* Vertical lines from y on, `height` long, at round times up to `seconds`, and the times below
 * them. */
void svg_time_axis(StrBuf *out, double x, double y, double height, double seconds,
                   double pixels_per_second);

#endif
