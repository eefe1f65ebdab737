# Pandapush as an image:
#
#   docker build -t pandapush .
#   docker run -ti -p 3000:80 -e AUTH_METHOD=basic -e ADMIN_USERNAME=admin -e ADMIN_PASSWORD=password pandapush

FROM node:22-slim AS base
# Called as in the images of Pandapush 2.2, with the ids of whoever owns a checkout on most machines.
RUN groupmod --new-name docker node \
  && usermod --login docker --home /home/docker --move-home node
WORKDIR /usr/src/app
# `pandapush` and `knex`
ENV PATH=/usr/src/app/node_modules/.bin:$PATH
# Docker lets anybody listen there.
ENV PORT=80
EXPOSE 80

# For compose.yaml, which puts a checkout into the working directory.
FROM base AS dev
# docker, by number: so others can tell that it is not root.
USER 1000:1000
CMD ["node", "scripts/dev.mjs"]

# The manifests alone: packages are installed anew only when these change.
FROM node:22-slim AS manifests
WORKDIR /usr/src/app
COPY package.json package-lock.json ./
COPY protocol/package.json protocol/
COPY client/package.json client/
COPY sdk/node/package.json sdk/node/
COPY server/package.json server/
COPY console/package.json console/
COPY e2e/package.json e2e/
COPY bench/package.json bench/

FROM manifests AS build
RUN npm ci --no-audit --no-fund
COPY . .
RUN npm run build

FROM manifests AS packages
RUN npm ci --omit=dev --workspace server --no-audit --no-fund

FROM base
COPY --from=packages /usr/src/app/node_modules node_modules
COPY --from=build /usr/src/app/protocol/package.json protocol/
COPY --from=build /usr/src/app/protocol/dist protocol/dist
COPY --from=build /usr/src/app/client/package.json client/
COPY --from=build /usr/src/app/client/dist client/dist
COPY --from=build /usr/src/app/console/package.json console/
COPY --from=build /usr/src/app/console/dist console/dist
COPY --from=build /usr/src/app/server/package.json /usr/src/app/server/knexfile.js server/
COPY --from=build /usr/src/app/server/bin server/bin
COPY --from=build /usr/src/app/server/dist server/dist
COPY --from=build /usr/src/app/server/lua server/lua
COPY --from=build /usr/src/app/server/migrations server/migrations
COPY --from=build /usr/src/app/server/public server/public
# The database, unless it is Postgres.
RUN install --directory --owner docker --group docker localdata
VOLUME /usr/src/app/localdata
USER 1000:1000
ENV NODE_ENV=production
# Whether the process answers; where to send clients is what /ready is for.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/live`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--max-semi-space-size=8", "server/bin/pandapush.js", "start"]
