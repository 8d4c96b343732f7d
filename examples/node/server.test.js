const assert = require("node:assert");
const test = require("node:test");
const { greeting } = require("./server.js");

test("the name is in the path", () => assert.strictEqual(greeting("/moon"), "good day, moon\n"));
test("without a name, the world is greeted", () => assert.strictEqual(greeting("/"), "good day, world\n"));
