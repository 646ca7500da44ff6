"""What the page shows of a race, as HTML: pictures, times, notes, and which models these are.

Pictures travel inside the HTML, so nothing is written to disk. Every word that came from a person
or a file is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from genkit_apps.lanes import MADE, Lane, Pair
from genkit_apps.racing import SHOWN, Frame, Race, Sound, enlarged

if TYPE_CHECKING:
    from PIL import Image

NOTES = {
    "pictures": "Times are of whole calls: reading the prompt, drawing, and making the pictures; "
    "previews are taken off. A preview is the noisy picture itself on its way.",
    "sounds": "Times are of whole calls, from the text to the samples.",
    "clips": "A frame's time is that of asking for it: its evaluations, the picture, and what is "
    "kept for later ones. One that was drawn ahead, for the action that was expected, is there at "
    "once.",
}
WIDEST = 800  # columns of a spectrogram
# Prompts to begin with, by the data that a model was trained on. Those of emoji-scenes are
# combinations that training never shows.
EXAMPLES = {
    "emoji-scenes": (
        "a large ghost above a large house on a purple background",
        "three small frogs on a blue background",
        "a large penguin left of a large cactus on a yellow background",
        "two large hearts on a pink background",
        "a large cat left of a large bell on a green background",
    ),
    "digits": ("0,1,2,3,4,5,6,7,8,9", "3", "8,8,8,8", "2,0,2,6"),
}
SPEECH = (  # of pipelines that say a text
    "Where is the tired king?",
    "The old clock is beside the lake, and the quick fox finds it.",
    "At 7:05 twelve small birds sat on the roof.",
    "Hello.",
)
MUSIC = (  # of pipelines that play what tags name
    "flute melody, rhodes chords, bossa drums",
    "piano melody, strings chords",
)
LABELS = ("0", "1", "0,1,2,3")  # of other pipelines of classes
WORDS = (  # of other pipelines of text
    "a photo of a red apple on a wooden table",
    "a lighthouse at dusk, oil painting",
    "a cat wearing a scarf",
)

STYLE = """
.html-container { padding: 0 !important; }
.genkit-head h1 { margin: 0; font-size: 1.7rem; font-weight: 700; letter-spacing: -.02em; }
.genkit-head p { margin: .15rem 0 0; color: var(--body-text-color-subdued); }
.genkit-lane { border: 1px solid var(--border-color-primary); border-radius: 14px;
  padding: 1rem 1.1rem 1.1rem; background: var(--block-background-fill); }
.genkit-lane header { display: flex; align-items: baseline; gap: .6rem; flex-wrap: wrap; }
.genkit-lane h2 { margin: 0; font-size: 1.05rem; font-weight: 650; overflow-wrap: anywhere; }
.genkit-lane .how { color: var(--body-text-color-subdued); font-size: .85rem; }
.genkit-lane .time { margin-left: auto; font-size: 1.5rem; font-weight: 700;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.genkit-student .time { color: var(--color-accent); }
.genkit-track { height: 4px; border-radius: 2px; margin: .6rem 0 .9rem; overflow: hidden;
  background: var(--border-color-primary); }
.genkit-track i { display: block; height: 100%; border-radius: 2px;
  background: var(--body-text-color-subdued); }
.genkit-student .genkit-track i { background: var(--color-accent); }
.genkit-grid { display: grid; gap: 10px; justify-content: center; }
.genkit-grid img, .genkit-grid .blank { display: block; width: 100%; aspect-ratio: 1;
  border-radius: 8px; background: var(--background-fill-secondary); margin: 0; }
.genkit-grid img { height: auto; aspect-ratio: auto; }
.genkit-grid img.pixels { image-rendering: pixelated; }
.genkit-sounds figure { margin: 0 0 .6rem; }
.genkit-sounds img { width: 100%; height: 96px; border-radius: 8px; margin: 0; }
.genkit-sounds .blank { height: 96px; border-radius: 8px;
  background: var(--background-fill-secondary); }
.genkit-sounds audio { width: 100%; margin: .4rem 0 .2rem; }
.genkit-world { text-align: center; }
.genkit-world img { width: min(100%, 512px); aspect-ratio: 1; image-rendering: pixelated;
  border-radius: 8px; margin: 0 auto; }
.genkit-world p { margin: .5rem 0 0; font-variant-numeric: tabular-nums; }
.genkit-sum { font-size: 1.15rem; min-height: 1.7rem; }
.genkit-sum b { color: var(--color-accent); }
.genkit-note { border-left: 3px solid #e0a100; padding: .5rem .8rem; margin: .4rem 0 0;
  border-radius: 4px; background: color-mix(in srgb, #e0a100 12%, transparent); }
.genkit-foot { margin-top: 1rem; font-size: .85rem; color: var(--body-text-color-subdued);
  overflow-x: auto; }
.genkit-models, .genkit-models tr { border: 0 !important; }
.genkit-models { width: 100%; border-collapse: collapse; margin: 0 0 .6rem; }
.genkit-models th, .genkit-models td { text-align: left; padding: .3rem .9rem .3rem 0;
  border: 0; border-bottom: 1px solid var(--border-color-primary); }
.genkit-models th { color: var(--body-text-color-subdued); font-weight: 500; }
.genkit-chips { flex-wrap: wrap; gap: 8px !important; }
.genkit-chips button { flex: 0 0 auto !important; width: auto !important; min-width: 0 !important;
  max-width: 100%; white-space: normal; border-radius: 16px; font-weight: 400;
  padding: .3rem .9rem; }
"""


def examples(lane: Lane) -> tuple[str, ...]:
    """Prompts to begin with, for a model trained on what `lane` was."""
    known = EXAMPLES.get(str(lane.record.get("data", "")))
    if known is not None:
        return known
    if lane.takes("text"):
        return SPEECH
    if lane.makes == "sounds":
        return MUSIC
    return LABELS if lane.takes("class_labels") else WORDS


def hint(lane: Lane) -> str:
    """What an empty field for the prompt says."""
    if lane.takes("class_labels"):
        return "Labels with commas between them, such as 3,1,4; nothing is one of each"
    return f"What is to be {MADE[lane.makes]}"


def head(pairs: Sequence[Pair]) -> str:
    """The page's name and what it is about; of one student alone, why it has no teacher."""
    text = (
        "The same task, the same noise: a slow teacher, step by step, beside the student that "
        "learned to do it at once."
    )
    if len(pairs) == 1 and pairs[0].teacher is None:
        text = sentence(pairs[0].missing)
    return f'<div class="genkit-head"><h1>genkit</h1><p>{escape(text)}</p></div>'


def sentence(text: str) -> str:
    """A message as a sentence of the page; the name of an argument keeps its small letter."""
    start = text[:1] if "_" in text.partition(" ")[0] else text[:1].upper()
    return f"{start}{text[1:].rstrip('.')}."


def clock(seconds: float) -> str:
    """A duration as people read it: 0.4 ms, 12 ms, 1.24 s, 75 s."""
    if seconds < 1:
        return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"
    return f"{seconds:.{2 if seconds < 10 else 1 if seconds < 60 else 0}f} s"


def times(ratio: float) -> str:
    """A ratio of times: 1.4, 12, 130."""
    if ratio >= 100:
        return f"{float(f'{ratio:.2g}'):,.0f}"
    return f"{ratio:.{1 if ratio < 10 else 0}f}"


def data_uri(image: Image.Image, exact: bool) -> str:
    """A picture inside a URI: exact as PNG; else, where it is large, smaller as JPEG."""
    kind = "png" if exact or min(image.size) <= SHOWN else "jpeg"
    file = io.BytesIO()
    (image if kind == "png" else image.convert("RGB")).save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def panel(lane: Lane, frame: Frame | None, asked: tuple[str, int]) -> str:
    """A lane: its name, how it draws, its time so far, how far it is, its pictures.

    asked: the prompt, which is what the pictures are called, and how many there will be.
    """
    far = 0.0
    if frame is not None and frame.steps:
        far = 1.0 if frame.done else frame.step / frame.steps
    title = f'<h2>{escape(lane.name)}</h2><span class="how">{escape(how(lane, frame))}</span>'
    time = clock(frame.seconds) if frame is not None and frame.seconds else ""
    return (
        f'<section class="genkit-lane genkit-{lane.role}">'
        f'<header>{title}<span class="time">{time}</span></header>'
        f'<div class="genkit-track"><i style="width:{far:.1%}"></i></div>'
        f"{players(frame) if lane.makes == 'sounds' else grid(frame, *asked)}</section>"
    )


def how(lane: Lane, frame: Frame | None) -> str:
    """How a lane draws and how far it is, in words: teacher, step 12 of 50."""
    steps = lane.steps if frame is None else frame.steps
    if steps is None:
        return lane.role
    if frame is None or frame.done or not frame.step:
        return f"{lane.role}, {steps} step{'s' * (steps > 1)}"
    return f"{lane.role}, step {frame.step} of {steps}"


def grid(frame: Frame | None, prompt: str, many: int) -> str:
    """Pictures in as near a square as there are, empty places where they are still to come."""
    images = () if frame is None else frame.images
    many = len(images) or many
    columns = 1 if many == 1 else 2 if many <= 4 else 3 if many <= 9 else 5 if many <= 25 else 8
    widest = SHOWN if columns == 1 else 240
    style = f"grid-template-columns:repeat({columns},minmax(0,{widest}px))"
    cells = '<div class="blank"></div>' * many
    if frame is not None and images:
        cells = "".join(_picture(each, prompt, frame.done, many == 1) for each in images)
    return f'<div class="genkit-grid" style="{style}">{cells}</div>'


def players(frame: Frame | None) -> str:
    """Sounds as spectrograms over players, an empty place where one is still to come."""
    if frame is None or not frame.sounds:
        return '<div class="genkit-sounds"><div class="blank"></div></div>'
    made = "".join(_player(each, frame.seconds / len(frame.sounds)) for each in frame.sounds)
    return f'<div class="genkit-sounds">{made}</div>'


def _player(sound: Sound, seconds: float) -> str:
    from genkit.audio.files import wav_bytes

    held = base64.b64encode(wav_bytes(sound.samples, sound.sample_rate)).decode()
    faster = times(sound.seconds / max(seconds, 1e-9))
    said = f"{sound.seconds:.2f} s of sound, made {faster} times as fast as it plays"
    return (
        f'<figure><img alt="spectrogram" src="{data_uri(spectrogram(sound), True)}">'
        f'<audio controls src="data:audio/wav;base64,{held}"></audio>'
        f"<figcaption>{said}</figcaption></figure>"
    )


def spectrogram(sound: Sound) -> Image.Image:
    """A sound's log-mels as a picture of at most WIDEST columns, low bands at the bottom."""
    from genkit.audio import pictures
    from genkit.audio.files import resample
    from genkit.audio.spectra import SPEECH, log_mel

    mono = sound.samples if sound.samples.ndim == 1 else sound.samples.mean(1)
    mel = log_mel(resample(mono.float(), sound.sample_rate, SPEECH.sample_rate)[None])[0]
    return pictures.spectrogram(SPEECH.normalise(mel[:: -(-len(mel) // WIDEST)]), scale=1)


def _picture(image: Image.Image, prompt: str, done: bool, alone: bool) -> str:
    """A finished picture comes enlarged; a preview as it is, which costs less, for the browser to
    enlarge. Shown smaller than it came, it looks best smoothed."""
    kind = "pixels" if min(image.size) < SHOWN and (alone or not done) else ""
    source = data_uri(enlarged(image) if done else image, done)
    return f'<img class="{kind}" alt="{escape(prompt)}" src="{source}" decoding="sync">'


def summary(seen: Race, error: str = "") -> str:
    """Who was faster by how much, once both are done; then what there is to note."""
    notes = [*seen.notes, *([error] if error else [])]
    told = "".join(f'<div class="genkit-note">{escape(sentence(note))}</div>' for note in notes)
    line = ""
    if seen.ratio is not None and seen.student and seen.teacher:
        ours, theirs = clock(seen.student.seconds), clock(seen.teacher.seconds)
        quicker = seen.ratio >= 1
        by = times(seen.ratio if quicker else 1 / seen.ratio)
        who = "The student" if quicker else "The teacher"
        line = f"{who} was <b>{by} times faster</b>: student {ours}, teacher {theirs}."
    return f'<div class="genkit-sum">{line}</div>{told}'


def models(pair: Pair) -> str:
    """A table of which models these are: steps, size, data, method, and where they ran."""
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in model(lane))}</tr>"
        for lane in pair.lanes
    )
    names = ("", "model", "steps", "guidance", "weights", "trained on", "method", "runs on")
    titles = "".join(f"<th>{name}</th>" for name in names)
    note = NOTES[pair.student.makes]
    table = f'<table class="genkit-models"><tr>{titles}</tr>{rows}</table>'
    return f'<div class="genkit-foot">{table}{note}</div>'


def model(lane: Lane) -> tuple[str, ...]:
    """A lane's row of that table; a dash for what its folder does not say."""
    record, weights = lane.record, lane.weights
    size = f"{weights / 1e6:,.1f} M" if weights >= 1e5 else f"{weights:,}"
    said = {"steps": lane.steps, "guidance": lane.guidance}
    steps, guidance = ("–" if value is None else f"{value:g}" for value in said.values())
    data, method = (str(record.get(key) or "–") for key in ("data", "method"))
    return (
        lane.role,
        lane.name,
        steps,
        "off" if lane.guidance == 1 else guidance,
        size,
        data,
        method,
        lane.place,
    )
