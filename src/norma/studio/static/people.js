"use strict";
const when = (seconds) => new Date(seconds * 1000).toLocaleString(zh ? "zh-CN" : "en-GB");
async function users() {
  const { users: found } = await ask("/api/people");
  const change = (body) => ask("/api/people/change", body).then(() => { say(T("Changed; their sessions have ended", "已更改；其会话已结束")); return all(); }).catch(trouble);
  $("users").replaceChildren(make("thead", {}, row([T("name", "用户名"), T("role", "角色"), T("may come in", "可登录"), T("since", "创建时间"), T("new password", "新密码")], "th")), make("tbody", {}, ...found.map((u) => {
    const role = make("select", { "aria-label": T("role", "角色"), onchange: (e) => change({ name: u.name, role: e.target.value }) }, ...["annotator", "reviewer", "admin"].map((r) => make("option", { value: r, selected: r === u.role }, PEOPLE[r])));
    const active = make("input", { type: "checkbox", "aria-label": T("may come in", "可登录"), onchange: (e) => change({ name: u.name, active: e.target.checked }) });
    active.checked = u.active;
    const secret = make("input", { type: "password", minlength: 10, "aria-label": T("new password", "新密码"), autocomplete: "new-password" });
    return row([u.name, role, active, make("small", {}, when(u.created)), make("td", { class: "set" }, secret, make("button", { type: "button", onclick: () => change({ name: u.name, password: secret.value }) }, T("Set", "设置")))]);
  })));
}
async function audit() {
  const { rows } = await ask("/api/people/audit");
  $("audit").replaceChildren(make("thead", {}, row([T("when", "时间"), T("who", "人员"), T("what", "操作"), T("details", "详情"), T("from", "来源")], "th")), make("tbody", {}, ...rows.map((r) => row([make("small", {}, when(r.time)), r.user, r.action, make("small", {}, Object.entries(r.detail).map(([k, v]) => `${k}: ${v}`).join(", ").slice(0, 160)), r.address]))));
}
const all = () => Promise.all([$("users") ? users() : null, $("audit") ? audit() : null]).catch(trouble);
$("new")?.addEventListener("submit", (event) => { event.preventDefault(); const form = event.target; ask("/api/people", Object.fromEntries(new FormData(form))).then(() => { form.reset(); return all(); }).catch(trouble); });
$("password")?.addEventListener("submit", (event) => { event.preventDefault(); ask("/api/people/password", Object.fromEntries(new FormData(event.target))).then(() => { location.href = "/login"; }).catch(trouble); });
all();
