/* server_routes.h: the functions of server_routes.inc. Each sends one reply. */
#ifndef PI2_SERVER_SERVER_ROUTES_H
#define PI2_SERVER_SERVER_ROUTES_H

#include "exchange.h"

#define ROUTE(method, path, form, is_public, needs, function) \
    enum MHD_Result function(pi2_exchange *exchange);
#include "server_routes.inc"
#undef ROUTE

#endif
