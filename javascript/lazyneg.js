/*
 * The timeline under the "Critical step" slider: what the settings mean for the run at hand.
 *
 * Gradio announces only what the user does. What it sets itself (a pasted infotext, a style) is
 * noticed where it sets it, so nothing has to be looked for at each update of the page.
 */
var lazyneg = (() => {
    "use strict";

    /* What the page says. The keys of the localization files; braces are filled in. */
    const TEXTS = {
        critical: "Critical step",
        stop: "Stop step",
        hiresCritical: "Hires critical step",
        firstPass: "First pass",
        hiresPass: "Hires pass",
        tipNegative: "step {step} of {steps} ({percent} %): negative prompt",
        tipNeeded: "step {step} of {steps} ({percent} %): negative prompt where needed",
        tipEmpty: "step {step} of {steps} ({percent} %): empty prompt",
        tipEarly: "step {step} of {steps} ({percent} %): early negative prompt",
        all: "negative prompt in all {steps} steps",
        from: "negative prompt from step {critical} of {steps}",
        until: "negative prompt before step {stop} of {steps}",
        between: "negative prompt from step {critical}, before step {stop} of {steps}",
        never: "no negative prompt in {steps} steps",
        needed: "{words}, where needed",
        joined: "{pass}: {words}",
        off: "Off. The checkbox in the title switches it on.",
        warnNever: "The negative prompt never acts: lower the critical step.",
        warnStart: "The negative prompt acts from the start: raise the critical step to delay it.",
        warnEmpty: "The negative prompt field is empty: write into it what is to be kept out.",
        warnGuidance: "The guidance (CFG Scale) is 1, at which negative prompts have no effect: " +
            "raise it.",
        warnGuidanceFirst: "The guidance of the first pass (CFG Scale) is 1, at which negative prompts " +
            "have no effect: raise it.",
        warnGuidanceHires: "The guidance of the hires pass (Hires CFG Scale) is 1, at which negative " +
            "prompts have no effect: raise it.",
        warnStop: "Set the stop step to more than the critical step, or to 0: as it is, the " +
            "picture is made without Lazy Negative.",
        warnTag: "The prompt has a <lazyneg:…> tag, which decides in place of this: to use this, " +
            "remove the tag.",
    };

    // The step arithmetic. A table of cases made by the Python core tests it.

    /** Steps an img2img run really makes. */
    function stepsOfImg2img(steps, strength, exactly) {
        return exactly ? steps : Math.floor(Math.min(strength, 0.999) * steps) + 1;
    }

    /** The steps [critical, stop) of a pass of `steps` steps in which the negative prompt acts. */
    function windowOf(settings, steps, hiresPass = false) {
        let critical = settings.critical_step;
        let stop = settings.stop_step || Infinity;
        if (hiresPass && settings.hires === "full") {
            critical = 0;
            stop = Infinity;
        } else if (hiresPass && settings.hires === "own") {
            critical = settings.hires_critical_step;
            stop = Infinity;
        }
        if (settings.unit === "percent") {
            critical = Math.floor(critical * steps / 100);
            stop = Math.floor(stop * steps / 100);
        }
        critical = Math.min(critical, steps);
        return {critical, stop: Math.max(critical, Math.min(stop, steps)), steps};
    }

    /** The percent that mean step `step`; the step itself if there are up to 100 steps. */
    function toPercent(step, steps) {
        return Math.min(Math.ceil(step * 100 / steps), 100);
    }

    /** Settings that mean the same in the other unit. */
    function convert(settings, unit, steps, hiresSteps) {
        if (settings.unit === unit) return settings;
        const to = (value, n) => unit === "percent" ? toPercent(value, n) : Math.floor(value * n / 100);
        const critical = to(settings.critical_step, steps);
        // 0 would mean "never stops", and a stop has to come after the start.
        const stop = settings.stop_step && Math.max(to(settings.stop_step, steps), critical + 1);
        return {
            ...settings,
            unit,
            critical_step: critical,
            // Nothing starts at 100 percent, so nothing has to stop.
            stop_step: unit === "percent" && stop > 100 ? 0 : stop,
            hires_critical_step: to(settings.hires_critical_step, hiresSteps),
        };
    }

    /** Whether the picture itself tells where, or while, the negative prompt acts. */
    function chooses({area, adaptive}) {
        return area < 100 || adaptive;
    }

    function say(key, values = {}) {
        const text = (window.localization || {})[TEXTS[key]] || TEXTS[key];
        return text.replace(/{(\w+)}/g, (_, name) => values[name]);
    }

    function words({critical, stop, steps}, needed) {
        if (critical >= stop) return say("never", {steps});
        if (needed) return say("needed", {words: words({critical, stop, steps}, false)});
        if (critical === 0 && stop === steps) return say("all", {steps});
        if (stop === steps) return say("from", {critical, steps});
        return say(critical === 0 ? "until" : "between", {critical, stop, steps});
    }

    // The page.

    const NUMBER = "input[type=number]";
    const RANGE = "input[type=range]";
    const TEXT = "textarea, input[type=text]";

    function element(tag, name, parent) {
        const made = document.createElement(tag);
        made.className = `lazyneg-${name}`;
        parent.append(made);
        return made;
    }

    /** A text that changes without the page's observers being woken. */
    function text(parent) {
        const node = document.createTextNode("");
        parent.append(node);
        return {set: (value) => node.data !== value && (node.data = value)};
    }

    /** Calls back when a script sets a property of an element, which fires no event. */
    function onSet(target, property, callback) {
        const inherited = Object.getOwnPropertyDescriptor(target, property) ||
            Object.getOwnPropertyDescriptor(Object.getPrototypeOf(target), property);
        Object.defineProperty(target, property, {
            configurable: true,
            enumerable: true,
            get() {
                return inherited.get.call(this);
            },
            set(value) {
                inherited.set.call(this, value);
                callback();
            },
        });
    }

    /** How near a pointer has to come to an end of the track to mean it, in pixels. */
    const REACH = 14;

    /** An end of the part in which the negative prompt acts, to be moved; `drag` gets the step. */
    class Handle {
        constructor(bar, end, label, drag) {
            this.bar = bar;
            this.end = end;
            this.label = label;
            this.drag = drag;
            this.root = element("div", "handle", bar.track);
            this.root.addEventListener("keydown", (event) => this.key(event));
        }

        key(event) {
            const {steps} = this.bar.span;
            const now = this.bar.span[this.end];
            const page = Math.max(Math.round(steps / 10), 1);
            const step = {
                ArrowLeft: now - 1,
                ArrowDown: now - 1,
                ArrowRight: now + 1,
                ArrowUp: now + 1,
                PageDown: now - page,
                PageUp: now + page,
                Home: 0,
                End: steps,
            }[event.key];
            if (step === undefined) return;
            event.preventDefault();
            this.drag(Math.min(Math.max(step, 0), steps));
        }

        show(span, text, draggable) {
            this.root.hidden = !draggable;
            this.root.style.left = `${span[this.end] * 100 / span.steps}%`;
            const about = {
                "role": "slider",
                "tabindex": 0,
                "aria-label": say(this.label),
                "aria-valuemin": 0,
                "aria-valuemax": span.steps,
                "aria-valuenow": span[this.end],
                "aria-valuetext": text,
            };
            for (const name in about) this.root.setAttribute(name, about[name]);
        }
    }

    /** One bar of the timeline. `handles` has for each end that may be dragged its label, and what
     * is called with a step. */
    class Bar {
        constructor(parent, title, handles) {
            this.root = element("div", "line", parent);
            this.title = text(element("span", "title", this.root));
            this.title.set(say(title));
            this.track = element("div", "track", this.root);
            this.parts = ["empty", "negative", "empty"].map((name) => element("div", name, this.track));
            this.handles = Object.entries(handles).map(([end, about]) => new Handle(this, end, ...about));
            this.tip = element("div", "tip", this.track);
            this.tip.setAttribute("aria-hidden", "true");
            this.tipText = text(this.tip);
            this.label = title;
            this.pointer = 0;
            this.track.addEventListener("pointermove", (event) => this.moved(event));
            this.track.addEventListener("pointerdown", (event) => this.pressed(event));
            this.track.addEventListener("pointerleave", () => this.tip.classList.remove("lazyneg-on"));
        }

        /** Share of the track left of the pointer, from 0 to 1. */
        share(event) {
            const box = this.track.getBoundingClientRect();
            return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
        }

        /** The handle that a pointer means: the nearer one; where nothing stops, the last only at the
         * very end. */
        meant(event) {
            const {critical, stop, steps} = this.span;
            const [first, last = first] = this.handles;
            const far = (step) => Math.abs(this.share(event) - step / steps);
            const reached = stop < steps || far(stop) * this.track.clientWidth < REACH;
            return reached && far(stop) < far(critical) ? last : first;
        }

        pressed(event) {
            if (!this.draggable || event.button !== 0) return;
            this.track.setPointerCapture(event.pointerId);
            this.held = this.meant(event);
            this.held.root.focus({preventScroll: true});
            event.preventDefault();
            this.moved(event);
        }

        moved(event) {
            this.pointer = this.share(event);
            if (this.draggable && this.track.hasPointerCapture(event.pointerId)) {
                this.held.drag(Math.round(this.pointer * this.span.steps));
            }
            this.tip.style.left = `${this.pointer * 100}%`;
            this.tip.style.translate = `${-this.pointer * 100}% 0`;
            this.tip.classList.add("lazyneg-on");
            this.tell();
        }

        /** What the pointer is over. */
        tell() {
            const {critical, stop, steps} = this.span;
            const step = Math.min(Math.floor(this.pointer * steps), steps - 1);
            const acts = step >= critical && step < stop;
            const kind = acts ? (this.needed ? "tipNeeded" : "tipNegative") : this.early ? "tipEarly" : "tipEmpty";
            this.tipText.set(say(kind, {step, steps, percent: Math.floor(step * 100 / steps)}));
        }

        show({span, early, needed, draggable}) {
            this.span = span;
            this.early = early;
            this.needed = needed;
            this.draggable = draggable;
            const {critical, stop, steps} = span;
            const ends = [0, critical, stop, steps];
            this.parts.forEach((part, i) => {
                part.style.flexGrow = ends[i + 1] - ends[i];
            });
            this.track.style.setProperty("--lazyneg-steps", steps);
            this.track.classList.toggle("lazyneg-fine", steps > 75);
            this.track.classList.toggle("lazyneg-draggable", draggable);
            this.track.setAttribute("role", draggable ? "group" : "img");
            this.track.setAttribute("aria-label", say(this.label));
            this.track.setAttribute("aria-description", words(span, needed));
            for (const handle of this.handles) handle.show(span, words(span, needed), draggable);
            this.tell();
        }
    }

    /** The timeline of one tab. */
    class Timeline {
        constructor(root) {
            this.root = root;
            this.tab = root.dataset.tab;
            this.percentMaximum = Number(root.dataset.percentMaximum);
            this.first = new Bar(root, "firstPass", {
                critical: ["critical", (step) => this.drag("critical_step", step)],
                stop: ["stop", (step) => this.dragStop(step)],
            });
            this.hires = new Bar(root, "hiresPass", {
                critical: ["hiresCritical", (step) => this.drag("hires_critical_step", step)],
            });
            this.words = text(element("p", "words", root));
            const warnings = element("p", "warnings", root);
            warnings.setAttribute("role", "status");
            this.warnings = text(warnings);
            this.unit = this.settings().unit;
            this.sliders = ["critical_step", "stop_step", "hires_critical_step"];
            this.stepsMaximum = this.sliders.map((name) => this.find(this.own(name), RANGE)?.max);
            this.watch();
            this.refresh();
        }

        own(name) {
            return `${this.root.dataset.prefix}${name}`;
        }

        find(id, selector) {
            return gradioApp().querySelector(`#${id} :is(${selector})`);
        }

        number(id) {
            return Number(this.find(id, NUMBER)?.value) || 0;
        }

        checked(id) {
            return Boolean(this.find(`${id}-checkbox`, "input")?.checked);
        }

        choice(name) {
            return this.find(this.own(name), "input:checked")?.value;
        }

        filled(id) {
            return Boolean(this.find(id, TEXT)?.value.trim());
        }

        settings() {
            return {
                critical_step: this.number(this.own("critical_step")),
                unit: this.choice("unit"),
                stop_step: this.number(this.own("stop_step")),
                hires: this.choice("hires"),
                hires_critical_step: this.number(this.own("hires_critical_step")),
                area: this.number(this.own("area")),
                adaptive: Boolean(this.find(this.own("adaptive"), "input")?.checked),
            };
        }

        /** Steps of the first pass and of the hires pass, which is 0 where there is none. */
        steps() {
            const steps = Math.max(this.number(`${this.tab}_steps`), 1);
            if (this.tab === "img2img") {
                const strength = this.number("img2img_denoising_strength");
                return [stepsOfImg2img(steps, strength, opts.img2img_fix_steps), 0];
            }
            return [steps, this.checked("txt2img_hr") ? this.number("txt2img_hires_steps") || steps : 0];
        }

        /** Guidance of the first pass and of the hires pass, which only some hosts know apart. */
        guidances() {
            const first = this.number(`${this.tab}_cfg_scale`);
            return [first, this.number(`${this.tab}_hr_cfg`) || first];
        }

        watch() {
            const soon = () => this.soon();
            const tab = gradioApp().querySelector(`#tab_${this.tab}`);
            for (const name of ["input", "change", "focusout"]) tab.addEventListener(name, soon);
            const numbers = [`${this.tab}_steps`, `${this.tab}_denoising_strength`, `${this.tab}_cfg_scale`,
                "txt2img_hr_cfg", "txt2img_hires_steps", this.own("area"), ...this.sliders.map((name) => this.own(name))];
            const texts = [`${this.tab}_prompt`, `${this.tab}_neg_prompt`, this.own("early_prompt")];
            for (const id of numbers) this.notice(id, NUMBER, "value");
            for (const id of texts) this.notice(id, TEXT, "value");
            for (const id of [this.own("enabled"), "txt2img_hr"]) this.notice(`${id}-checkbox`, "input", "checked");
            for (const name of ["unit", "hires", "adaptive"]) this.notice(this.own(name), "input", "checked");
            for (const radio of gradioApp().querySelectorAll(`#${this.own("unit")} input`)) {
                radio.addEventListener("input", () => this.switchUnit(radio.value));
            }
            for (const name of this.sliders) {
                // Gradio itself knows one range for both units.
                const number = this.find(this.own(name), NUMBER);
                number?.addEventListener("change", () => {
                    if (Number(number.value) > Number(number.max)) this.put(name, Number(number.max));
                });
            }
        }

        notice(id, selector, property) {
            for (const found of gradioApp().querySelectorAll(`#${id} :is(${selector})`)) {
                onSet(found, property, () => this.soon());
            }
        }

        /** Several changes at once cost one refresh. */
        soon() {
            this.frame ??= requestAnimationFrame(() => {
                this.frame = undefined;
                this.refresh();
            });
        }

        /** Sets a number as if the user had typed it. */
        put(name, value) {
            const number = this.find(this.own(name), NUMBER);
            number.value = value;
            number.dispatchEvent(new Event("input", {bubbles: true}));
        }

        drag(name, step) {
            const settings = this.settings();
            const [first, hires] = this.steps();
            const value = settings.unit === "percent" ?
                toPercent(step, name === "critical_step" ? first : hires) : step;
            const limit = name === "critical_step" && settings.stop_step ? settings.stop_step - 1 : Infinity;
            this.put(name, Math.min(value, limit));
        }

        /** At the end of the run nothing stops. */
        dragStop(step) {
            const {unit, critical_step: critical} = this.settings();
            const [steps] = this.steps();
            const value = unit === "percent" ? toPercent(step, steps) : step;
            this.put("stop_step", step < steps ? Math.max(value, critical + 1) : 0);
        }

        /** Only the user's own switch converts: a pasted unit comes with its values. */
        switchUnit(unit) {
            const [first, hires] = this.steps();
            const converted = convert({...this.settings(), unit: this.unit}, unit, first, hires || first);
            for (const name of this.sliders) this.put(name, converted[name]);
        }

        refresh() {
            const settings = this.settings();
            const [first, hires] = this.steps();
            const spans = [windowOf(settings, first), hires && windowOf(settings, hires, true)];
            const early = this.filled(this.own("early_prompt"));
            const needed = chooses(settings);
            this.unit = settings.unit;
            this.range(settings.unit);
            this.root.classList.toggle("lazyneg-off", !this.checked(this.own("enabled")));
            this.root.classList.toggle("lazyneg-two", Boolean(hires));
            this.first.show({span: spans[0], early, needed, draggable: true});
            if (hires) this.hires.show({span: spans[1], early, needed, draggable: settings.hires === "own"});
            this.words.set(hires ?
                [["firstPass", spans[0]], ["hiresPass", spans[1]]]
                    .map(([pass, span]) => say("joined", {pass: say(pass), words: words(span, needed)})).join("\n") :
                words(spans[0], needed));
            this.warnings.set(this.warningsFor(settings, spans.filter(Boolean)).map((key) => say(key)).join(" "));
        }

        warningsFor(settings, spans) {
            const keys = [];
            if (/<lazyneg:[^>]+>/.test(this.find(`${this.tab}_prompt`, TEXT)?.value)) keys.push("warnTag");
            if (!this.checked(this.own("enabled"))) return keys.length ? keys : ["off"];
            if (settings.stop_step && settings.stop_step <= settings.critical_step) keys.push("warnStop");
            else if (spans.every(({critical, stop}) => critical >= stop)) keys.push("warnNever");
            else if (!chooses(settings) && spans.every(({critical, stop, steps}) => critical === 0 && stop === steps)) {
                keys.push("warnStart");
            }
            // A style may bring a negative prompt of its own.
            if (!this.filled(`${this.tab}_neg_prompt`) && !this.find(`${this.tab}_styles`, ".token")) keys.push("warnEmpty");
            const without = this.guidances().slice(0, spans.length).map((guidance) => guidance === 1);
            if (without.every(Boolean)) keys.push("warnGuidance");
            else if (without[0]) keys.push("warnGuidanceFirst");
            else if (without[1]) keys.push("warnGuidanceHires");
            return keys;
        }

        range(unit) {
            this.sliders.forEach((name, i) => {
                const maximum = unit === "percent" ? this.percentMaximum : this.stepsMaximum[i];
                for (const input of gradioApp().querySelectorAll(`#${this.own(name)} :is(${NUMBER}, ${RANGE})`)) {
                    if (input.max === String(maximum)) continue;
                    input.max = maximum;
                    // Gradio draws the filled part of a slider so, and only when the value changes.
                    if (input.type === "range") input.style.backgroundSize = `${input.value * 100 / maximum}% 100%`;
                }
            });
        }
    }

    /** Opens the accordion of a timeline and leaves it off, with the two clicks of a user. */
    function open(timeline) {
        const accordion = gradioApp().getElementById(timeline.own("enabled"));
        const head = accordion.querySelector(".label-wrap");
        if (head.classList.contains("open")) return;
        head.click();
        // The host has the checkbox follow the accordion, from its next task on.
        setTimeout(() => accordion.querySelector("input[type=checkbox]").click());
    }

    if (typeof onUiLoaded === "function") {
        onUiLoaded(() => {
            // A second copy of this file finds them filled.
            const roots = [...gradioApp().querySelectorAll(".lazyneg-timeline:empty")];
            // A host that the extension cannot serve may lack what follows, too.
            if (!roots.length) return;
            const timelines = roots.map((root) => new Timeline(root));
            onOptionsAvailable(() => {
                timelines.forEach((timeline) => timeline.refresh());
                if (opts.lazyneg_open) timelines.forEach(open);
            });
        });
    }

    return {TEXTS, stepsOfImg2img, windowOf, convert};
})();
