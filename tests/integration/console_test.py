"""The web console in headless Chromium: it sends, streams, stops, inspects and drains.

With TESSERA_SCREENSHOTS=FOLDER it writes the pictures of the documentation there as well.
"""

import json
import os
import re
import signal
import unittest

import server
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
QUESTION = "Write a function that adds two numbers."
WIDE = {"width": 1280, "height": 860}
NARROW = {"width": 360, "height": 740}
PATIENCE_MS = server.PATIENCE * 1000

expect.set_options(timeout=PATIENCE_MS)


class Console(unittest.TestCase):
    ARGUMENTS = ("--max-num-seqs", "4")

    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls, *cls.ARGUMENTS)
        cls.playwright = sync_playwright().start()
        cls.addClassCleanup(cls.playwright.stop)
        cls.browser = cls.playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.problems = []

    def open(self, view="playground", scheme="light", viewport=None, settings=None):
        """A page of its own storage; whatever it complains of fails the test."""
        context = self.browser.new_context(viewport=viewport or WIDE, color_scheme=scheme,
                                           reduced_motion="reduce")
        self.addCleanup(context.close)
        context.set_default_timeout(PATIENCE_MS)
        values = {"temperature": "0", "max_tokens": "64", **(settings or {})}
        context.add_init_script("if (!localStorage.getItem('tessera.settings')) "
                                f"localStorage.setItem('tessera.settings', {json.dumps(json.dumps(values))});")
        page = context.new_page()
        page.on("console", lambda message: self.complain(message.type, message.text))
        page.on("pageerror", lambda error: self.complain("error", str(error)))
        page.goto(f"{self.server.url}/console/#/{view}")
        return page

    def complain(self, kind, text):
        if kind in ("error", "warning"):
            self.problems.append(text)

    def tearDown(self):
        self.assertEqual(self.problems, [])

    def ask(self, page, text=QUESTION):
        """Sends a message and waits for the end of its reply, which it returns."""
        box = page.get_by_role("textbox", name="Message", exact=True)
        box.fill(text)
        box.press("Enter")
        reply = page.locator(".message.assistant").last
        expect(reply).to_have_attribute("aria-busy", "false")
        expect(reply.locator(".stats")).to_be_visible()
        return reply

    def ask_endlessly(self, page):
        box = page.get_by_role("textbox", name="Message", exact=True)
        box.fill(QUESTION)
        box.press("Enter")
        reply = page.locator(".message.assistant").last
        expect(reply).to_have_attribute("aria-busy", "true")
        return reply

    def expected_reply(self):
        body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0,
                "max_tokens": 64}
        return self.server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"]

    def shoot(self, page, name):
        folder = os.environ.get("TESSERA_SCREENSHOTS")
        if folder:
            page.screenshot(path=os.path.join(folder, f"{name}.png"))


class Stopping(Console):
    """On kernels so slow that a reply of 3,000 tokens takes minutes: a browser on a busy machine sees it streaming."""
    ARGUMENTS = ("--backend", "reference")

    def test_stop_ends_the_stream_on_the_server_too(self):
        for way in ("button", "escape"):
            with self.subTest(way):
                page = self.open(settings={"max_tokens": "3000", "min_tokens": "3000"})
                reply = self.ask_endlessly(page)
                body = reply.locator(".message-body")
                expect(body).to_have_text(re.compile(r"\w{3}"))
                length = len(body.inner_text())
                server.wait_until(lambda: len(body.inner_text()) > length, "the reply grows")
                self.assertGreater(self.server.load()["running"], 0)
                if way == "button":
                    page.get_by_role("button", name="Stop").click()
                else:
                    page.keyboard.press("Escape")
                expect(reply).to_contain_text("Stopped.")
                expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
                server.wait_until(lambda: self.server.load()["running"] == 0, "the request is gone")


class Playground(Console):
    def test_a_reply_streams_in_and_can_be_asked_again(self):
        page = self.open()
        reply = self.ask(page)
        expect(reply.locator(".message-body")).to_contain_text("def add(a, b):")
        expect(reply.locator(".code-block .hl-keyword").first).to_have_text("def")
        stats = reply.locator(".stats").inner_text()
        for name in ("TTFT", "tokens/s", "Prompt", "Generated", "finished"):
            self.assertIn(name, stats)
        before = reply.locator(".message-body").inner_text()
        reply.get_by_role("button", name="Regenerate").click()
        again = page.locator(".message.assistant")
        expect(again).to_have_count(1)
        expect(again.locator(".stats")).to_be_visible()
        self.assertEqual(again.locator(".message-body").inner_text(), before)
        page.locator(".message.user").get_by_role("button", name="Edit and send again").click()
        box = page.locator(".message.user textarea")
        box.fill("Hello")
        box.press("Enter")
        expect(page.locator(".message.user")).to_have_text(re.compile("Hello"))
        expect(page.locator(".message")).to_have_count(2)
        expect(page.locator(".message.assistant .stats")).to_be_visible()
        self.shoot(page, "console-again")

    def test_the_conversation_survives_a_reload_and_an_export(self):
        page = self.open()
        text = self.ask(page).locator(".message-body").inner_text()
        page.reload()
        expect(page.locator(".message.assistant .message-body")).to_have_text(text, use_inner_text=True)
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        with open(download.value.path(), encoding="utf-8") as file:
            exported = json.load(file)
        roles = [message["role"] for message in exported["conversation"]["messages"]]
        self.assertEqual(roles, ["user", "assistant"])
        self.assertEqual(exported["conversation"]["messages"][1]["content"], self.expected_reply())
        page.get_by_role("button", name="New chat").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import").click()
        chooser.value.set_files(download.value.path())
        expect(page.locator(".message.assistant .message-body")).to_have_text(text, use_inner_text=True)

    def test_the_inspector_shows_every_token_with_alternatives(self):
        page = self.open(settings={"logprobs": True, "top_logprobs": "3"})
        reply = self.ask(page)
        reply.get_by_role("button", name="Tokens").click()
        tokens = reply.get_by_role("option")
        text = "".join(tokens.all_text_contents()).replace("⏎", "\n").replace("⇥", "\t")
        self.assertTrue(text.startswith(self.expected_reply()), text)
        tokens.first.click()
        page.keyboard.press("ArrowRight")
        expect(tokens.nth(1)).to_be_focused()
        detail = reply.locator(".token-detail")
        expect(detail).to_contain_text("Bytes")
        self.assertRegex(detail.inner_text(), r"Id\s+\d+")
        self.assertGreaterEqual(detail.locator("tbody tr").count(), 3)
        self.shoot(page, "console-tokens")
        reply.get_by_role("button", name="Raw SSE").click()
        expect(reply.locator(".raw")).to_contain_text("data: [DONE]")

    def test_a_tool_call_is_shown_parsed_and_can_be_answered(self):
        page = self.open(settings={"tool_choice": "required"})
        page.locator("summary", has_text="Tools").click()
        page.get_by_role("button", name="Insert an example").last.click()
        tools = page.get_by_label("Tools", exact=True)
        example = json.loads(tools.input_value())
        # A free string is as long as a model likes: the choice of a list ends by the grammar.
        example[0]["function"]["parameters"]["properties"]["city"]["enum"] = ["Oslo", "Paris"]
        tools.fill(json.dumps(example))
        reply = self.ask(page, "What is the weather in Paris?")
        card = reply.locator(".tool-card")
        expect(card).to_be_visible()
        expect(card).to_contain_text("arguments parsed")
        reply.get_by_role("textbox").fill('{"temperature": 21}')
        reply.get_by_role("button", name="Send results").click()
        expect(page.locator(".message.tool")).to_contain_text("21")
        expect(page.locator(".message.assistant")).to_have_count(2)
        expect(page.locator(".message.assistant").last.locator(".stats")).to_be_visible()
        tools.fill("[{")
        expect(page.locator("#setting-tools-error")).to_contain_text("Not JSON")

    def test_what_a_model_writes_is_never_markup(self):
        hostile = ("<img src=x onerror=\"document.title='broken'\">\n\n<script>document.title='broken'</script>\n\n"
                   "[link](javascript:document.title='broken') ![image](http://192.0.2.1/x.png)\n\n"
                   "```html\n<b onclick=x>code</b>\n```\n")
        conversation = {"id": "x", "title": "", "updated": 1, "messages": [
            {"role": "user", "content": hostile},
            {"role": "assistant", "content": hostile, "reasoning": hostile, "toolCalls": [
                {"id": "1", "name": hostile, "arguments": json.dumps({hostile: hostile})}]}]}
        page = self.open()
        page.evaluate("value => localStorage.setItem('tessera.conversations', value)",
                      json.dumps([conversation]))
        page.reload()
        reply = page.locator(".message.assistant")
        expect(reply).to_contain_text("<script>document.title='broken'</script>")
        self.assertEqual(page.locator("#playground").locator("img, script, iframe, [onerror], [onclick]").count(), 0)
        self.assertEqual(page.locator(".message a[href^='javascript']").count(), 0)
        self.assertNotEqual(page.title(), "broken")

    def test_markdown_is_rendered(self):
        text = ("## Title\n\nSome *thin*, **bold** and `code`, [a link](https://example.com/a).\n\n"
                "- one\n- two\n  1. inner\n\n> quoted\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\nx = 1\n")
        page = self.open()
        page.evaluate("value => localStorage.setItem('tessera.conversations', value)", json.dumps([
            {"id": "x", "title": "", "updated": 1, "messages": [{"role": "assistant", "content": text}]}]))
        page.reload()
        body = page.locator(".message-body")
        for selector, content in (("h4", "Title"), ("em", "thin"), ("strong", "bold"), ("p code", "code"),
                                  ("a", "a link"), ("ul > li > ol > li", "inner"), ("blockquote", "quoted"),
                                  ("td.align-right", "2"), (".code-block pre", "x = 1")):
            expect(body.locator(selector).first).to_have_text(content)

    def test_completion_and_fill_in_the_middle(self):
        page = self.open(settings={"max_tokens": "12"})
        page.get_by_role("button", name="Completion").click()
        page.get_by_label("Prompt", exact=True).fill("def add(a, b):\n")
        page.get_by_role("button", name="Complete", exact=True).click()
        result = page.locator(".completion-result")
        expect(result.locator(".stats")).to_be_visible()
        expected = self.server.post("/v1/completions", {
            "model": "demo", "prompt": "def add(a, b):\n", "max_tokens": 12, "temperature": 0}).json
        self.assertEqual(result.locator("pre").text_content(), expected["choices"][0]["text"])
        page.get_by_role("button", name="Fill in the middle").click()
        page.get_by_label("Text after the gap").fill("\n    return c\n")
        page.get_by_role("button", name="Fill the gap").click()
        expect(result.locator(".stats")).to_be_visible()
        result.get_by_role("button", name="View as code").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Python").click()
        expect(dialog.locator("pre")).to_contain_text("suffix=")

    def test_what_is_sent_before_the_models_are_listed_waits_for_them(self):
        page = self.open()
        held = []
        page.route("**/v1/models", lambda route: held.append(route))
        page.reload()
        reply = self.ask_endlessly(page)
        page.wait_for_timeout(200)
        self.assertEqual(len(held), 1)
        held.pop().continue_()
        expect(reply.locator(".stats")).to_be_visible()
        expect(reply.locator(".message-body")).to_contain_text("def add(a, b):")

    def test_errors_of_the_server_are_shown_in_its_words(self):
        page = self.open(settings={"top_p": "1.5"})
        box = page.get_by_role("textbox", name="Message", exact=True)
        box.fill("Hello")
        box.press("Enter")
        expect(page.locator(".message.assistant .problem")).to_contain_text("top_p")
        self.problems = [text for text in self.problems if "400" not in text]

    def test_a_narrow_screen_has_drawers(self):
        page = self.open(viewport=NARROW)
        self.ask(page)
        for name in ("Settings", "History"):
            page.get_by_role("button", name=name, exact=True).click()
            pane = page.get_by_role("complementary", name=name)
            expect(pane).to_be_visible()
            page.keyboard.press("Escape")
            expect(pane).not_to_be_visible()


class Operations(Console):
    def test_the_view_shows_what_runs(self):
        page = self.open("operations")
        expect(page.locator(".banner")).to_contain_text("Ready")
        stream = self.server.stream(server.endless())
        self.addCleanup(stream.close)
        events = stream.events()
        next(events)
        row = page.locator(".grid-table tbody tr").filter(has_text="running")
        expect(row).to_contain_text("/ 4,000")
        tile = page.locator(".tile", has_text="Tokens/s").locator(".tile-value")
        expect(tile).not_to_have_text("0")
        expect(page.locator(".chart-plot .line").first).to_be_attached()
        expect(page.get_by_text("Rank 0", exact=True)).to_be_visible()
        expect(page.locator(".config")).to_contain_text("max-num-seqs: 4")
        self.shoot(page, "console-operations")
        stream.close()
        expect(page.get_by_text("No request is under way.")).to_be_visible()

    def test_the_map_of_experts_follows_what_is_routed(self):
        own = server.start(self, "--no-enable-prefix-caching")
        self.server, shared = own, self.server
        self.addCleanup(setattr, self, "server", shared)

        def experts():
            return own.get("/admin/v1/experts").json["layers"]

        def route(prompt):
            """Completes 8 tokens; returns the positions that were computed."""
            usage = own.post("/v1/completions", {"model": "demo", "prompt": prompt, "max_tokens": 8,
                                                 "ignore_eos": True}).json["usage"]
            return usage["prompt_tokens"] + usage["completion_tokens"] - 1

        page = self.open("operations")
        panel = page.locator(".experts")
        expect(panel).to_contain_text("Nothing was routed in the last 60 s.")
        self.assertEqual([layer["layer"] for layer in experts()], [1, 2, 3, 4])
        positions = route("def add(a, b):")
        canvas = panel.locator("canvas")
        expect(canvas).to_be_visible()
        expect(panel).to_contain_text("Busiest: expert")
        since_start = panel.get_by_role("button", name="Since the start")
        since_start.click()
        expect(since_start).to_have_attribute("aria-pressed", "true")
        # The last tokens come with the next health step, which is not counted.
        row = panel.locator("tbody tr").first
        expect(row.locator("td").nth(1)).to_have_text(str(16 * positions))
        for layer in experts():
            self.assertEqual(len(layer["recent"]), 256)
            self.assertEqual(sum(layer["total"]), 16 * positions)
        picture = canvas.evaluate("node => node.toDataURL()")
        positions += route("while True: print(1)")
        expect(row.locator("td").nth(1)).to_have_text(str(16 * positions))
        self.assertNotEqual(canvas.evaluate("node => node.toDataURL()"), picture)
        canvas.focus()
        readout = panel.locator(".heat-readout")
        for key, text in (("ArrowDown", "Layer 1, expert 0 on rank 0:"), ("ArrowDown", "Layer 2, expert 0 "),
                          ("End", "Layer 2, expert 255 "), ("ArrowLeft", "Layer 2, expert 254 ")):
            page.keyboard.press(key)
            expect(readout).to_contain_text(text)
        expect(readout).to_contain_text(f": {experts()[1]['total'][254]} items")
        page.locator("summary", has_text="By layer").click()
        expect(panel.locator("tbody tr")).to_have_count(4)
        self.shoot(panel, "console-experts")
        page.set_viewport_size(NARROW)
        expect(readout).to_contain_text("Each cell is the busiest of")

    def test_drain_asks_and_can_be_undone(self):
        page = self.open("operations")
        page.get_by_role("button", name="Drain").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        self.assertEqual(self.server.get("/readyz").status, 200)
        page.get_by_role("button", name="Drain").click()
        page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        expect(page.locator(".banner")).to_contain_text("Drained")
        self.assertEqual(self.server.get("/readyz").status, 503)
        self.assertEqual(self.server.get("/health").status, 200)
        refused = self.server.post("/v1/completions", {"model": "demo", "prompt": "a"})
        self.assertEqual(refused.status, 503)
        self.shoot(page, "console-drained")
        page.get_by_role("button", name="Take requests again").click()
        expect(page.locator(".banner")).to_contain_text("Ready")
        server.wait_until(lambda: self.server.get("/readyz").status == 200, "it is ready again")

    def test_stale_and_disconnected_look_different(self):
        own = server.start(self)
        self.server, shared = own, self.server
        self.addCleanup(setattr, self, "server", shared)
        page = self.open("operations")
        banner = page.locator(".banner")
        expect(banner).to_contain_text("Ready")
        own.send(signal.SIGSTOP)
        expect(banner).to_contain_text(re.compile(r"Stale.*Last update \d+ s ago"))
        expect(page.get_by_role("button", name="Drain")).to_be_disabled()
        own.send(signal.SIGCONT)
        expect(banner).to_contain_text("Ready")
        own.send(signal.SIGKILL)
        expect(banner).to_contain_text("Disconnected")
        expect(page.locator("#server-state")).to_have_text("disconnected")
        # The browser itself reports connections that fail.
        self.problems = [text for text in self.problems if "ERR_" not in text]


class Keys(Console):
    ARGUMENTS = ("--api-key", "user-key", "--admin-api-key", "admin-key")

    def give_key(self, page, key):
        page.get_by_role("button", name="API key").click()
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Use").click()

    def test_each_view_says_which_key_it_needs(self):
        page = self.open()
        expect(page.locator(".middle > .problem")).to_contain_text("API key")
        page.get_by_role("link", name="Operations").click()
        expect(page.get_by_text("A key is needed")).to_be_visible()
        self.give_key(page, "user-key")
        expect(page.get_by_text("This is for administrators")).to_be_visible()
        self.give_key(page, "admin-key")
        expect(page.locator(".banner")).to_contain_text("Ready")
        expect(page.locator(".config")).not_to_contain_text("admin-key")
        page.get_by_role("link", name="Playground").click()
        self.ask(page, "Hello")
        self.problems = [text for text in self.problems if not re.search(r"40[13]", text)]


class Accessibility(Console):
    def check(self, page, what):
        results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
        found = [f"{entry['id']}: {entry['help']}: {[node['html'][:200] for node in entry['nodes'][:3]]}"
                 for entry in results.response["violations"] if entry["impact"] in ("serious", "critical")]
        self.assertEqual(found, [], what)
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.assertLessEqual(overflow, 0, f"{what}: wider than the screen")

    def test_nothing_serious_in_either_theme_and_width(self):
        for scheme in ("light", "dark"):
            for width, viewport in (("wide", WIDE), ("narrow", NARROW)):
                what = f"{scheme} {width}"
                with self.subTest(what):
                    page = self.open(scheme=scheme, viewport=viewport, settings={"logprobs": True})
                    reply = self.ask(page)
                    self.check(page, f"{what} chat")
                    self.shoot(page, f"console-playground-{scheme}-{width}")
                    reply.get_by_role("button", name="Tokens").click()
                    reply.get_by_role("option").first.click()
                    self.check(page, f"{what} tokens")
                    if width == "narrow":
                        page.get_by_role("button", name="Settings").click()
                    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
                    self.check(page, f"{what} settings")
                    page.goto(f"{self.server.url}/console/#/operations")
                    expect(page.locator(".banner")).to_contain_text("Ready")
                    expect(page.locator(".experts canvas")).to_be_visible()
                    page.locator("summary", has_text="By layer").click()
                    page.wait_for_timeout(1500)
                    self.check(page, f"{what} operations")
                    self.shoot(page, f"console-operations-{scheme}-{width}")

    def test_the_keyboard_reaches_everything_that_is_needed(self):
        page = self.open()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        seen = []
        for _ in range(24):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(
                "(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim() "
                "|| document.activeElement.getAttribute('aria-label')"))
        for name in ("Operations", "New chat", "Completion", "Message", "Send", "System prompt", "Max tokens"):
            self.assertIn(name, seen)


if __name__ == "__main__":
    server.main()
