/** An npm registry of packed packages, for this machine and the time of a test. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { basename } from "node:path";

/** What a registry returns for a package with one version. */
function packument({ name, manifest, path }, base) {
  const bytes = readFileSync(path);
  const digest = (algorithm, encoding) => createHash(algorithm).update(bytes).digest(encoding);
  const dist = {
    tarball: `${base}/tarballs/${basename(path)}`,
    shasum: digest("sha1", "hex"),
    integrity: `sha512-${digest("sha512", "base64")}`,
  };
  const { version } = manifest;
  return {
    name,
    "dist-tags": { latest: version },
    versions: { [version]: { ...manifest, _id: `${name}@${version}`, dist } },
  };
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}

/**
 * @param {{ name: string, manifest: any, path: string }[]} tarballs
 * @returns {Promise<{ url: string, published: any[], close: () => void }>} `published`: bodies of what was
 * published to it
 */
export async function startRegistry(tarballs) {
  const published = [];
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://registry").pathname).slice(1);
    const tarball = tarballs.find((one) => path === `tarballs/${basename(one.path)}`);
    const known = tarballs.find(({ name }) => path === name);
    if (request.method === "PUT") {
      published.push(await bodyOf(request));
      response.writeHead(201).end("{}");
    } else if (tarball !== undefined) {
      response.end(readFileSync(tarball.path));
    } else if (known !== undefined) {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(packument(known, url)));
    } else {
      response.writeHead(404).end("{}");
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}`;
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url, published, close };
}
