#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static void record(const char *what) {
    const char *path = getenv("RECORDED_LOOKUPS");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file < 0) return;
    dprintf(file, "%s\n", what);
    close(file);
}
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!next) next = dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && strcmp(node, "localhost") && strcmp(node, "127.0.0.1") && strcmp(node, "::1")) {
        record(node);
        return EAI_NONAME;
    }
    return next(node, service, hints, found);
}
int connect(int socket, const struct sockaddr *address, socklen_t length) {
    static int (*next)(int, const struct sockaddr *, socklen_t);
    if (!next) next = dlsym(RTLD_NEXT, "connect");
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    if (address->sa_family == AF_INET && (ntohl(in->sin_addr.s_addr) >> 24) != 127) {
        record("connect");
        errno = ENETUNREACH;
        return -1;
    }
    return next(socket, address, length);
}
