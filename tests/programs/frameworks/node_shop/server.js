// A shop of two worker processes that open and close a connection of better-sqlite3 for each
// request: node server.js PORT
"use strict";
const cluster = require("node:cluster");
const http = require("node:http");
const Database = require("better-sqlite3");

const TABLE = "CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, body TEXT)";

function withDatabase(work) {
  const db = new Database("shop.db", { timeout: 20000 });
  try {
    db.pragma("journal_mode = WAL");
    db.exec(TABLE);
    return work(db);
  } finally {
    db.close();
  }
}

function add(order) {
  withDatabase((db) => db.prepare("INSERT INTO orders VALUES (?, ?)").run(order.key, order.body));
  return { worker: process.pid };
}

function every() {
  const rows = withDatabase((db) => db.prepare("SELECT key, body FROM orders").raw().all());
  return Object.fromEntries(rows);
}

function answer(response, work) {
  let status = 200, body;
  try {
    body = JSON.stringify(work());
  } catch (error) {
    [status, body] = [500, String(error)];
  }
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(body);
}

function serve(request, response) {
  if (request.method === "GET") return answer(response, every);
  let text = "";
  request.on("data", (piece) => (text += piece));
  request.on("end", () => answer(response, () => add(JSON.parse(text))));
}

if (cluster.isPrimary) {
  cluster.on("exit", (worker) => worker.exitedAfterDisconnect || cluster.fork());
  const end = () => cluster.disconnect(() => process.exit(0));
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  cluster.fork();
  cluster.fork();
} else {
  process.on("SIGINT", () => {}); // Ctrl-C reaches the whole group; the primary ends the workers
  http.createServer(serve).listen(Number(process.argv[2]), "127.0.0.1");
}
