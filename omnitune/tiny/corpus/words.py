"""The grammar of the sentences that are spoken, dictated and read, with their questions."""

import random
import re
from dataclasses import dataclass

from omnitune.tiny.corpus.basics import Question, partition

LEXICON: dict[str, tuple[str, ...]] = {
    slot: tuple(word.strip() for word in words.split(","))
    for slot, words in {
        "person": "anna,ben,carl,dora,emma,frank,grace,henry,irene,jack,kate,leo,maria,nick,olga,"
        "peter,rosa,sam,tina,victor,the teacher,the doctor,the farmer,the driver,the baker,"
        "the nurse,the pilot,the singer,the painter,the waiter,my brother,my sister,my mother,"
        "my father,my uncle,my aunt,our neighbor,the captain,the girl,the boy",
        "number": "two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,fifteen,twenty,"
        "thirty,fifty",
        "goods": "apples,books,candles,bottles,flowers,pencils,baskets,blankets,buttons,letters,"
        "tickets,stamps,coins,plates,spoons,lamps,mirrors,ropes,boxes,cameras,pillows,toys,"
        "shells,maps,brushes,magazines,batteries,envelopes,umbrellas,notebooks",
        "food": "bread,butter,cheese,soup,rice,pasta,salad,chicken,potatoes,tomatoes,carrots,"
        "onions,honey,pancakes,sausages,beans,mushrooms,noodles,yogurt,pumpkin,chocolate,"
        "cookies,peaches,cherries,grapes,lemons,bananas,melon,porridge,omelettes",
        "animals": "horses,sheep,goats,ducks,rabbits,turtles,monkeys,lions,tigers,elephants,"
        "dolphins,penguins,wolves,foxes,squirrels,owls,eagles,frogs,spiders,butterflies,camels,"
        "donkeys,parrots,kittens,puppies",
        "animal": "cat,dog,hamster,lizard,goose,pigeon,hedgehog,beaver,badger,raccoon,otter,"
        "panda,leopard,zebra,kangaroo",
        "doing": "resting,running,playing,hiding,eating,jumping,waiting,sleeping,drinking,swimming",
        "place": "market,library,station,harbor,museum,bakery,hospital,airport,factory,stadium,"
        "theater,village,castle,forest,garden,beach,river,school,office,bridge,church,park,farm,"
        "hotel,kitchen,palace,temple,workshop,cafe,bank",
        "color": "red,green,blue,yellow,purple,pink,white,black,brown,gray",
        "garment": "coat,hat,scarf,jacket,shirt,sweater,dress,belt,helmet,apron,tie,skirt",
        "gift": "kite,drum,puzzle,ball,guitar,bicycle,doll,balloon,bracelet,watch,wallet,lantern",
        "tool": "hammer,ladder,bucket,kettle,broom,needle,scissors,shovel,towel,knife,pan,bowl,"
        "vase,clock,radio,suitcase,backpack,telephone",
        "furniture": "table,shelf,sofa,bed,desk,bench,carpet,cupboard,drawer,chair,piano,stove",
        "quality": "old,new,heavy,broken,clean,dirty,wooden,golden,silver,empty,tiny,soft",
        "mood": "happy,hungry,tired,quiet,noisy,wild,young,clever,lazy,brave",
        "vehicle": "train,bus,ferry,truck,taxi,van,tram,boat,airplane,ambulance",
        "hour": "one,two,three,four,five,six,seven,eight,nine,ten,eleven,noon,midnight,"
        "half past two,half past six,half past nine,quarter to five,quarter past eight",
        "day": "monday,tuesday,wednesday,thursday,friday,saturday,sunday",
        "month": "january,february,march,april,june,july,august,september,october,november,"
        "december",
        "weather": "sunny,cloudy,rainy,windy,foggy,stormy,snowy,freezing,warm,humid,dry,cold",
        "region": "mountains,valley,desert,city,north,south,east,west,island,countryside,jungle,"
        "suburbs",
        "country": "france,spain,italy,poland,norway,egypt,kenya,india,china,japan,brazil,mexico,"
        "canada,peru,greece,turkey",
        "meal": "breakfast,lunch,dinner,supper",
        "instrument": "violin,flute,trumpet,cello,harp,accordion,organ,banjo",
        "got": "bought,sold,found,lost,left,brought,kept",
        "skill": "swim,dance,paint,cook,drive,sing,juggle,knit,ski,sail,draw,type",
        "part": "door,gate,window,curtain,lid,oven,fridge,garage,letterbox,cabinet",
        "where": "under,behind,beside,near,on",
        "daytime": "morning,afternoon,evening,night,week",
    }.items()
}

# Each sentence form with the questions it can be asked, by the slot that answers them.
TEMPLATES: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "{person} {got} {number} {goods} at the {place}",
        {
            "person": "who {got} the {goods}?",
            "number": "how many {goods} were {got}?",
            "goods": "what was {got}?",
            "place": "where were the {goods} {got}?",
        },
    ),
    (
        "{person} wears a {color} {garment} in the {place}",
        {
            "person": "who wears the {garment}?",
            "color": "what color is the {garment}?",
            "garment": "what does {person} wear?",
            "place": "where is {person}?",
        },
    ),
    (
        "{number} {mood} {animals} are {doing} near the {place}",
        {
            "number": "how many {animals} are there?",
            "animals": "which animals are {doing}?",
            "place": "where are the {animals}?",
        },
    ),
    (
        "the {vehicle} to the {place} leaves at {hour}",
        {
            "vehicle": "what leaves at {hour}?",
            "place": "where does the {vehicle} go?",
            "hour": "when does the {vehicle} leave?",
        },
    ),
    (
        "it is very {weather} in the {region} on {day}",
        {
            "weather": "how is the weather?",
            "region": "where is it {weather}?",
            "day": "which day is it?",
        },
    ),
    (
        "{person} likes {food} with {food2} for {meal}",
        {"person": "who likes {food}?", "meal": "which meal is it?"},
    ),
    (
        "please put the {quality} {tool} {where} the {furniture}",
        {"tool": "what should be moved?", "furniture": "which furniture is named?"},
    ),
    (
        "{person} cooked {food} for {number} guests on {day}",
        {
            "person": "who cooked the {food}?",
            "food": "what was cooked?",
            "number": "how many guests came?",
            "day": "which day is it?",
        },
    ),
    (
        "there are {number} {quality} {goods} {where} the {furniture}",
        {"number": "how many {goods} are there?", "goods": "what is {where} the {furniture}?"},
    ),
    (
        "{person} plays the {instrument} in the {place} every {day}",
        {
            "person": "who plays the {instrument}?",
            "instrument": "what does {person} play?",
            "place": "where is the {instrument} played?",
            "day": "which day is it?",
        },
    ),
    (
        "the {color} {vehicle} stopped beside the {place}",
        {
            "color": "what color is the {vehicle}?",
            "vehicle": "what stopped?",
            "place": "where did the {vehicle} stop?",
        },
    ),
    (
        "{person} was born in {country} in {month}",
        {
            "person": "who was born in {month}?",
            "country": "where was {person} born?",
            "month": "when was {person} born?",
        },
    ),
    (
        "{person} gave our cousin a {color} {gift}",
        {
            "person": "who gave the {gift}?",
            "color": "what color is the {gift}?",
            "gift": "what was given?",
        },
    ),
    (
        "{person} works at the {place} until {hour}",
        {
            "person": "who works at the {place}?",
            "place": "where does {person} work?",
            "hour": "when does {person} stop?",
        },
    ),
    (
        "the {mood} {animal} slept {where} the {furniture} all {daytime}",
        {"animal": "which animal slept?", "furniture": "which furniture is named?"},
    ),
    (
        "open the {part} and close the {part2} at {hour}",
        {"part": "what should be opened?", "part2": "what should be closed?"},
    ),
    (
        "{person} wants to learn how to {skill} in {country}",
        {
            "person": "who wants to {skill}?",
            "skill": "what does {person} want to learn?",
            "country": "where does {person} want to learn?",
        },
    ),
    (
        "{person} paid {number} dollars for the {quality} {tool}",
        {
            "person": "who paid for the {tool}?",
            "number": "how many dollars were paid?",
            "tool": "what did {person} pay for?",
        },
    ),
    (
        "{person} travels to {country} by {vehicle} in {month}",
        {
            "person": "who travels to {country}?",
            "country": "where does {person} travel?",
            "month": "when does {person} travel?",
        },
    ),
    (
        "remember to buy {food} and {number} {goods} on {day}",
        {"food": "what food is named?", "number": "how many {goods}?", "day": "which day is it?"},
    ),
)

KINDS = {
    "person": "who",
    "number": "number",
    "color": "color",
    "place": "where",
    "region": "where",
    "country": "where",
    "hour": "when",
    "day": "when",
    "month": "when",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence in lower case words without punctuation, and what it answers.

    Attributes:
        text: Five to ten words.
        facts: Questions about it. Their kinds are "who", "what", "where", "when",
            "number" and "color"; their answers are one to three words of the sentence.
    """

    text: str
    facts: tuple[Question, ...]


def sample_sentence(rng: random.Random, split: str) -> Sentence:
    """Draws a sentence that `split` ("train", "validation" or "test") owns."""
    while True:
        pattern, asked = rng.choice(TEMPLATES)
        values: dict[str, str] = {}
        for slot in re.findall(r"\{(\w+)\}", pattern):
            words = LEXICON[slot.rstrip("2")]
            values[slot] = rng.choice([word for word in words if word not in values.values()])
        text = pattern.format(**values)
        if partition(text) == split:
            facts = tuple(
                Question(question.format(**values), values[slot], KINDS.get(slot, "what"))
                for slot, question in asked.items()
            )
            return Sentence(text, facts)


def vocabulary() -> set[str]:
    """Returns every word that a sentence can hold."""
    texts = [re.sub(r"\{\w+\}", " ", pattern) for pattern, _ in TEMPLATES]
    used = {slot.rstrip("2") for p, _ in TEMPLATES for slot in re.findall(r"\{(\w+)\}", p)}
    for slot in used:
        texts.extend(LEXICON[slot])
    return {word for text in texts for word in text.split()}
