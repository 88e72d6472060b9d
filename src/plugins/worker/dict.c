#include "plugins/worker/worker.h"
int dict_load(void)
{
    return 0;
}
void dict_bind(lua_State *L, struct asio_rt *rt, struct peer *peer)
{
}
static void d_destroy(struct shared *s)
{
}
static int d_attach(struct shared *s, struct peer *p, void **l)
{
    return 0;
}
static void d_detach(struct shared *s, void *l)
{
}
static void d_open(lua_State *L, struct asio_rt *r, struct peer *p)
{
}
const struct shared_kind dict_kind = { .name = "shared dict",
    .destroy = d_destroy,
    .attach = d_attach,
    .detach = d_detach,
    .open = d_open,
    .class = "dict" };
