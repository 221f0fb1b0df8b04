// Render the API documentation from openapi.json.
"use strict";

function element(kind, text, parent) {
  const made = document.createElement(kind);
  made.textContent = text;
  parent.append(made);
  return made;
}

function resolve(schema, whole) {
  const name = schema?.$ref?.split("/").pop();
  return name ? whole.components.schemas[name] : schema;
}

function fields(schema, whole) {
  const properties = resolve(schema, whole)?.properties ?? {};
  return Object.entries(properties).map(([name, field]) => `${name}: ${field.type ?? "any"}`).join(", ");
}

function describe(path, method, operation, whole, parent) {
  element("h2", `${method.toUpperCase()} ${path}`, parent);
  element("p", operation.description ?? "", parent);
  const address = location.origin + path;
  element("pre", operation.requestBody ? `curl -F image=@leaf.jpg ${address}` : `curl ${address}`, parent);
  const list = element("ul", "", parent);
  const body = operation.requestBody?.content["multipart/form-data"]?.schema;
  if (body) element("li", `multipart form with ${fields(body, whole)} (a file)`, list);
  for (const [status, answer] of Object.entries(operation.responses)) {
    const [kind, content] = Object.entries(answer.content ?? {})[0] ?? ["", {}];
    const said = fields(content.schema, whole);
    element("li", `${status} ${answer.description}${kind && `, ${kind}`}${said && `: { ${said} }`}`, list);
  }
}

fetch("/openapi.json").then((answer) => answer.json()).then((whole) => {
  const parent = document.getElementById("operations");
  for (const [path, methods] of Object.entries(whole.paths)) {
    for (const [method, operation] of Object.entries(methods)) describe(path, method, operation, whole, parent);
  }
});
