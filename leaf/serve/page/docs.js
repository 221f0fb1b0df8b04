// Render the API documentation from openapi.json.
"use strict";

function element(kind, text, parent) {
  const made = document.createElement(kind);
  made.textContent = text;
  parent.append(made);
  return made;
}

function resolve(schema, spec) {
  const name = schema?.$ref?.split("/").pop();
  return name ? spec.components.schemas[name] : schema;
}

function fields(schema, spec) {
  const properties = resolve(schema, spec)?.properties ?? {};
  return Object.entries(properties).map(([name, field]) => `${name}: ${field.type ?? "any"}`).join(", ");
}

function describe(path, method, operation, spec, parent) {
  element("h2", `${method.toUpperCase()} ${path}`, parent);
  element("p", operation.description ?? "", parent);
  const address = location.origin + path;
  element("pre", operation.requestBody ? `curl -F image=@leaf.jpg ${address}` : `curl ${address}`, parent);
  const list = element("ul", "", parent);
  const body = operation.requestBody?.content["multipart/form-data"]?.schema;
  if (body) element("li", `multipart form with ${fields(body, spec)} (a file)`, list);
  for (const [status, response] of Object.entries(operation.responses)) {
    const [kind, content] = Object.entries(response.content ?? {})[0] ?? ["", {}];
    const body_fields = fields(content.schema, spec);
    element("li", `${status} ${response.description}${kind && `, ${kind}`}${body_fields && `: { ${body_fields} }`}`, list);
  }
}

fetch("/openapi.json").then((response) => response.json()).then((spec) => {
  const parent = document.getElementById("operations");
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) describe(path, method, operation, spec, parent);
  }
});
