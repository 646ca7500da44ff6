"""Letter-to-sound rules for English words that no dictionary has; written for genkit.

After the idea of Elovitz et al. 1976 (NRL Report 7948): at each place of a word the first rule of
its letter that fits is taken, left[letters]right = phonemes in ARPAbet; none of their rules is
copied. ^ and $ are the word's ends, C a consonant, V a vowel letter. Vowels come without stress:
`spell` puts it on the first full vowel.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

TEXT = """
[a]$=AH ^[any]=EH N IY w[ar]=AO R [are]$=EH R [air]=EH R [arr]=AE R [arV]=EH R [ar]=AA R
[augh]=AO [au]=AO [aw]=AO [ai]=EY [ay]=EY [alk]=AO K [alm]=AA M [all]=AO L [ald]=AO L D
[alt]=AO L T ^[a]$=AH ^[a]bout=AH ^[a]CV.=AH ^.[a]ble=EY ^..[a]ble=EY
[able]$=AH B AH L [age]$=IH JH C[al]$=AH L
[ation]=EY SH AH N [a]ste=EY [a]nge=EY [a]CeS?$=EY [a]Ce=EY [a]Cing=EY [a]Cio=EY [a]Cy$=EY
[a]x=AE w[a]nC?=AA w[a]sh=AA w[a]t=AA qu[a]=AA [an]$=AH N [a]=AE
[bb]=B m[b]$= [b]t$= [b]=B
[cch]=CH ^[chr]=K R [ch]=CH s[c]e= s[c]i= s[c]y= [cqu]=K W [ck]=K [cc]e=K S [cc]i=K S [cc]=K
[ci]a=SH [ci]o=SH [c]e=S [c]i=S [c]y=S [c]=K
[ddd]=D [dd]=D [dge]=JH [dg]i=JH C[ed]$=D [d]=D
C[e]$= V[e]$= ^.[e]$=IY ^..[e]$=IY [ear]n=ER [ear]l=ER [ear]th=ER [ear]ch=ER [ear]=IH R
[eau]=OW [ea]d$=EH [ea]dy=EH [ea]ther=EH [ea]lth=EH [ea]vy=EH [ea]=IY [eer]=IH R [ee]=IY
[eigh]=EY [ei]=IY [ere]$=IH R [err]=EH R [er]V=EH R [er]$=ER [er]=ER [eur]=ER [eu]=UW
[ewe]=UW [ew]=UW [ey]$=IY [ey]=EY p[ed]$=T k[ed]$=T s[ed]$=T
x[ed]$=T f[ed]$=T sh[ed]$=T ch[ed]$=T t[ed]$=IH D d[ed]$=IH D s[es]$=IH Z x[es]$=IH Z
z[es]$=IH Z ch[es]$=IH Z sh[es]$=IH Z c[es]$=IH Z g[es]$=IH Z C[es]$=Z [el]$=AH L [en]$=AH N
[ent]$=AH N T [ence]$=AH N S [e]ment=  C[e]ly=
[e]CeS?$=IY ^[re]=R IY ^[be]=B IH ^[de]=D IH [e]ness= [e]ful=
[e]less= [est]$=AH S T [e]=EH
[ff]=F [f]=F
^[gh]=G [gg]=G ^[gn]=N [gn]$=N [gu]e=G [gu]i=G [ght]=T [gh]= ^[ge]t=G EH ^[gi]r=G IH ^[gi]v=G IH
[g]e=JH [g]i=JH [g]y=JH [g]=G
^[hour]=AW ER ^[hon]e=AA N [h]V=HH [h]=
[igh]=AY [ign]$=AY N [ild]$=AY L D [ind]$=AY N D [ire]$=AY ER [ir]=ER [ique]$=IY K [ier]$=IY ER
[ie]d$=AY [ies]$=IY Z ^.[ie]$=AY [ie]=IY [io]n=Y AH [ious]$=IY AH S [ia]=IY AH [io]=IY OW
[ing]$=IH NG [ive]$=IH V [ice]$=IH S [ite]$=AY T [ize]$=AY Z [ise]$=AY Z [ine]$=AY N [ile]$=AY L
[ity]$=IH T IY [i]CeS?$=AY [i]Cing=AY [i]Cer$=AY [i]$=IY [i]=IH
[j]=JH
^[kn]=N [k]=K
[ll]=L C[le]$=AH L C[les]$=AH L Z C[led]$=AH L D a[l]f$= a[l]ve$= o[l]k$= [l]=L
[mm]=M [mn]$=M [m]=M
[nn]=N [nger]$=NG ER [ng]$=NG [ngl]=NG G L [ng]=NG G [nk]=NG K [nc]t=NG K [n]x=NG [n]=N
[oar]=AO R [oa]=OW [oe]$=OW [oi]=OY [oy]=OY [ook]=UH K [ood]$=UH D [oor]=AO R [oo]=UW
[ould]=UH D [ough]t=AO [ough]$=OW [our]$=AO R [ourn]=ER N [our]=AO R [ous]$=AH S [oup]=UW P
[ou]ble=AH [ou]ntry=AH [ou]ng=AH [ou]=AW ^[ow]n=OW [own]$=AW N [ow]$=OW [owe]=AW [ower]=AW ER
[ow]=AW w[or]=ER [ore]=AO R [or]$=ER [or]=AO R [old]=OW L D [oll]$=OW L [olt]=OW L T [ost]$=OW S T
^[one]=W AH N [one]$=OW N [ome]$=AH M [ove]$=AH V [other]=AH DH ER [on]$=AH N [o]nth=AH
[tion]=SH AH N [o]CeS?$=OW [o]Cing=OW [o]Cen$=OW [o]Cy$=OW [o]$=OW ^[o]CV=OW ^C[o]CV=OW [o]=AA
[ph]=F [pp]=P ^[ps]=S ^[pn]=N [p]=P
[qu]=K W [q]=K
[rrh]=R [rr]=R ^[rh]=R [r]=R
[sch]=S K [ssion]=SH AH N [sion]$=ZH AH N [sh]=SH [ss]=S [sure]=ZH ER [su]al=ZH UW V[s]V=Z
V[se]$=Z p[s]$=S t[s]$=S k[s]$=S f[s]$=S s[s]$=S C[s]$=Z V[s]$=Z [st]le=S [st]en=S [s]=S
[tch]=CH [tion]=SH AH N [tia]=SH AH [tious]=SH AH S [ture]$=CH ER [tu]al=CH UW ^[the]$=DH AH
^[th]is=DH ^[th]at=DH ^[th]e=DH ^[th]ose=DH ^[th]an$=DH ^[th]us$=DH [th]er=DH V[the]$=DH [th]=TH
[tt]=T [t]=T
[ur]=ER [uy]=AY [ui]t=UW [ui]=IH [ue]$=UW [u]ll$=UH [u]sh$=UH [ure]$=Y UH R ^[un]=AH N ^[u]CV=Y UW
[u]CeS?$=UW [u]Cing=UW [u]CiV=UW [u]$=UW [u]Ca=UW [u]=AH
[v]=V
^[wr]=R ^[who]=HH UW ^[wh]=W [wh]=W V[w]$= [w]=W
^[x]=Z [x]=K S
^[y]=Y ^C[y]$=AY ^CC[y]$=AY [y]CeS?$=AY [y]$=IY V[y]= [y]=IH
[zz]=Z [z]=Z
"""
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
WEAK = {"AH", "ER", "IH", "IY"}  # what a first syllable may be without being stressed


@cache
def _rules() -> dict[str, list[tuple[re.Pattern[str], re.Pattern[str], str, tuple[str, ...]]]]:
    """{letter: [(left, letters and right, letters, phonemes)]} in the order of TEXT."""
    found: dict[str, list[Any]] = {}
    for left, letters, right, said in re.findall(
        r"(\S*?)\[(\w+)\](\S*?)=((?:[A-Z]{1,2}(?:\s+|$))*)", TEXT
    ):
        sounds = tuple(said.split())
        inner, tail = _classes(letters), _classes(right)
        rule = (re.compile(f"(?:{_classes(left)})$"), re.compile(f"({inner})(?={tail})"))
        found.setdefault(letters[0], []).append((*rule, letters, sounds))
    return found


def _classes(pattern: str) -> str:
    return pattern.replace("C", "[^aeiouy]").replace("V", "[aeiouy]").replace("S?", "s?")


def spell(word: str) -> list[str]:
    """A word of lower-case letters a-z as ARPAbet, vowels with stress 0 or 1."""
    place, sounds = 0, []
    while place < len(word):
        for left, right, letters, said in _rules().get(word[place], ()):
            if right.match(word, place) and left.search(word[:place]):
                # A class in the letters themselves stands for what follows them.
                place += len(letters.rstrip("VC"))
                sounds += said
                break
        else:
            place += 1
    return _stressed(sounds or ["AH"])


def _stressed(sounds: list[str]) -> list[str]:
    vowels = [i for i, sound in enumerate(sounds) if sound in VOWELS]
    full = [i for i in vowels if sounds[i] not in WEAK]
    main = (full or vowels or [-1])[0]
    return [
        f"{sound}{int(i == main)}" if sound in VOWELS else sound for i, sound in enumerate(sounds)
    ]
