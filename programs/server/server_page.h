/* server_page.h: the files of the page, as CMakeLists.txt puts them into the program. */
#ifndef PI2_SERVER_SERVER_PAGE_H
#define PI2_SERVER_SERVER_PAGE_H

#include <stddef.h>

extern const unsigned char pi2_page_html[], pi2_page_css[], pi2_page_js[];
extern const size_t pi2_page_html_bytes, pi2_page_css_bytes, pi2_page_js_bytes;

#endif
