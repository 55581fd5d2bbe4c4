#include "report/svg.h"

#include <math.h>
#include <string.h>

void svg_begin(StrBuf *out, int width, int height) {
    strbuf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                  "height=\"%d\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"11\" "
                  "fill=\"" SVG_INK
                  "\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                  width, height, width, height);
}

void svg_end(StrBuf *out) {
    strbuf_printf(out, "</svg>\n");
}

void svg_group_begin(StrBuf *out, double x, double y) {
    strbuf_printf(out, "<g transform=\"translate(%g %g)\">\n", x, y);
}

void svg_group_end(StrBuf *out) {
    strbuf_printf(out, "</g>\n");
}

void svg_text(StrBuf *out, double x, double y, SvgAnchor anchor, const char *fill, const char *fmt,
              ...) {
    static const char *const anchors[] = {
        [SVG_START] = "start", [SVG_MIDDLE] = "middle", [SVG_END] = "end"};
    StrBuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    strbuf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">", x, y,
                  anchors[anchor], fill != NULL ? fill : SVG_INK);
    for (const char *c = strbuf_text(&text); *c != '\0'; c++)
        strbuf_printf(out, strchr("<>&", *c) != NULL ? "&#%d;" : "%c", *c);
    strbuf_printf(out, "</text>\n");
    strbuf_free(&text);
}

void svg_rect(StrBuf *out, double x, double y, double width, double height, const char *fill) {
    strbuf_printf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n",
                  x, y, width, height, fill);
}

void svg_path(StrBuf *out, const char *fill, double opacity, const char *d) {
    if (d == NULL || d[0] == '\0') return;
    strbuf_printf(out, "<path fill=\"%s\" fill-opacity=\"%.2f\" d=\"%s\"/>\n", fill, opacity, d);
}

/* The least of 1, 2, 5 times a power of ten that is at least x. */
static double round_step(double x) {
    double power = pow(10, floor(log10(x)));
    return x <= power       ? power
           : x <= 2 * power ? 2 * power
           : x <= 5 * power ? 5 * power
                            : 10 * power;
}

void svg_time_axis(StrBuf *out, double x, double y, double height, double seconds,
                   double pixels_per_second) {
    enum { APART = 60 };
    double step = round_step(APART / pixels_per_second);
    bool milli = step >= 1e-3;
    for (int i = 0; i * step <= seconds; i++) {
        double at = x + i * step * pixels_per_second;
        strbuf_printf(out, "<path stroke=\"#d5d9de\" d=\"M%.1f %.1fv%.1f\"/>", at, y, height);
        svg_text(out, at, y + height + 15, SVG_MIDDLE, SVG_FAINT, "%g%s",
                 i * step * (milli ? 1e3 : 1e6),
                 i > 0   ? ""
                 : milli ? " ms"
                         : " us");
    }
}
