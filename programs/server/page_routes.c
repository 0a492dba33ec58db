/* page_routes.c: the page at "/", which asks nothing of any other server, and may not. */
#include <string.h>

#include "server_page.h"
#include "server_routes.h"

enum MHD_Result pi2_route_page(pi2_exchange *exchange) {
    const struct { const char *path, *type; const unsigned char *bytes; size_t length; } files[] = {
        {"/", "text/html; charset=utf-8", pi2_page_html, pi2_page_html_bytes},
        {"/page.css", "text/css; charset=utf-8", pi2_page_css, pi2_page_css_bytes},
        {"/page.js", "text/javascript; charset=utf-8", pi2_page_js, pi2_page_js_bytes}};
    size_t i = 0;
    while (strcmp(files[i].path, exchange->route->path) != 0) i++; /* the routes are these */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        files[i].length, (void *)(uintptr_t)files[i].bytes, MHD_RESPMEM_PERSISTENT);
    if (response) {
        (void)MHD_add_response_header(response, "Content-Type", files[i].type);
        (void)MHD_add_response_header(response, "Cache-Control", "no-cache");
        (void)MHD_add_response_header(response, "Content-Security-Policy",
                                      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                                      "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
        (void)MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    }
    return pi2_exchange_send(exchange, MHD_HTTP_OK, response);
}
