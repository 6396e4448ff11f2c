// Opens a page with mgt-person in Chromium and prints what it shows: `node person.mjs < {"code", "html", …}`.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const { code, html, persons, browser: executablePath, screenshot } = JSON.parse(readFileSync(0, "utf8"));

const bundled = await build({
  stdin: { contents: code, resolveDir: "." },
  bundle: true,
  format: "esm",
  splitting: true, // in one file esbuild leaves mgt-person, which something loads later, uninitialised
  outdir: "/",
  write: false,
  logLevel: "error",
});
const parts = { "/": ["text/html; charset=utf-8", html] };
for (const { path, text } of bundled.outputFiles) parts[path] = ["text/javascript", text];
const server = createServer(({ url }, answer) => {
  const [type, text] = parts[url] ?? ["text/plain", ""];
  answer.writeHead(text ? 200 : 404, { "Content-Type": type }).end(text);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  const viewport = { width: 280, height: 32 * persons + 24 };
  const page = await browser.newPage({ ignoreHTTPSErrors: true, deviceScaleFactor: 2, viewport });
  const failures = [];
  page.on("pageerror", (error) => failures.push(`${error}`));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const icons = page.locator("mgt-person .presence-wrapper");
  await icons.nth(persons - 1).waitFor();
  const shown = await page.locator("mgt-person").evaluateAll((found) =>
    found.map(({ shadowRoot }) => ({
      name: shadowRoot.querySelector(".line1").textContent.trim(),
      presence: shadowRoot.querySelector(".presence-wrapper").title,
    })),
  );
  await page.screenshot({ path: screenshot });
  console.log(JSON.stringify({ shown, failures }));
} finally {
  await browser.close();
  server.close();
}
